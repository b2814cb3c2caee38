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


def write_file(path: str, chunks: Iterable[bytes]) -> None:
    """Write `chunks` to `path` by way of a temporary file beside it: whole or not at all.

    Raises:
        CommandError: the directory cannot be written.
    """
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise CommandError(
            f"failed to save image: invalid output path: stat {folder}: no such file or directory"
        )
    if os.path.isdir(path):
        raise CommandError(f"failed to save image: cannot write to {path}: it is a directory")
    partial = os.path.join(folder, f".docker_temp_{os.getpid()}")
    try:
        with open(partial, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(partial, path)
    except OSError as error:
        raise CommandError(f"failed to save image: {error}") from None
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
