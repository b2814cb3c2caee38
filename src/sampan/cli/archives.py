"""Archives between files and the engine."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK_BYTES = 1 << 18


def open_input(path: str) -> int:
    """A file opened for reading.

    Raises:
        CommandError: in Go's words.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandError(f"open {path}: {str(error.strerror).lower()}") from None


def blocks(fd: int) -> Iterator[bytes]:
    """What can be read from `fd`, in blocks."""
    while data := os.read(fd, BLOCK_BYTES):
        yield data


def check_output(path: str, refusal: str) -> None:
    """Refuse a path that no file can be written to, before anything is asked of the engine.

    Raises:
        CommandError: beginning with `refusal`.
    """
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise CommandError(
            f"{refusal}: invalid output path: stat {folder}: no such file or directory"
        )
    if os.path.isdir(path):
        raise CommandError(f"{refusal}: cannot write to {path}: it is a directory")


def write_file(path: str, chunks: Iterable[bytes], refusal: str = "failed to save image") -> None:
    """Write `chunks` to `path` by way of a temporary file beside it: whole or not at all.

    Raises:
        CommandError: the directory cannot be written.
    """
    check_output(path, refusal)
    partial = os.path.join(os.path.dirname(path) or ".", f".docker_temp_{os.getpid()}")
    try:
        with open(partial, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(partial, path)
    except OSError as error:
        raise CommandError(f"{refusal}: {error}") from None
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
