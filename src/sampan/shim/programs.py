"""Compiled seccomp programs, read once by the zygote and shared by all its shims."""

from __future__ import annotations

_programs: dict[str, bytes] = {}


def read_program(path: str | None) -> bytes | None:
    """The BPF in the file `path`, whose name is its digest: a path never changes its content.

    Raises:
        OSError: the file cannot be read.
    """
    if not path:
        return None
    program = _programs.get(path)
    if program is None:
        with open(path, "rb") as file:
            program = _programs[path] = file.read()
    return program
