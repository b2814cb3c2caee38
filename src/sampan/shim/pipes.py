"""A process's standard streams as pipes: its ends and ours."""

from __future__ import annotations

import os

Ends = tuple[int, int, int]


def open_pipes(open_stdin: bool) -> tuple[Ends, list[int]]:
    """((stdin, stdout, stderr) of the process, [our stdin if it is open, our stdout, our stderr])."""
    ours: list[int] = []
    if open_stdin:
        child_in, our_in = os.pipe2(os.O_CLOEXEC)
        ours.append(our_in)
    else:
        child_in = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    our_out, child_out = os.pipe2(os.O_CLOEXEC)
    our_err, child_err = os.pipe2(os.O_CLOEXEC)
    return (child_in, child_out, child_err), [*ours, our_out, our_err]


def open_null() -> tuple[Ends, list[int]]:
    """For a process that nobody watches."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return (null, null, null), []
