"""Rotated logs: `path` is written, `path.1` is the one before it, the highest number the oldest.

With compression the rotated files are `path.1.gz` and so on. Rotation only renames (with one file:
unlinks), so a reader that holds a file open still gets all of it.
"""

from __future__ import annotations

import os

COPY_BYTES = 1 << 20


def rotate(path: str, max_files: int, *, compress: bool = False) -> None:
    """Make room for a new file at `path`, keeping at most `max_files - 1` older ones."""
    if max_files < 2:
        os.unlink(path)
        return
    suffix = ".gz" if compress else ""
    for number in range(max_files - 2, 0, -1):
        rename_if_there(f"{path}.{number}{suffix}", f"{path}.{number + 1}{suffix}")
    if not compress:
        os.rename(path, f"{path}.1")
        return
    plain = f"{path}.rotated"
    os.rename(path, plain)
    compress_file(plain, f"{path}.1.gz")
    os.unlink(plain)


def rename_if_there(old: str, new: str) -> None:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        pass


def compress_file(source: str, target: str) -> None:
    """Write `source` gzipped to `target`, which appears complete or not at all."""
    import zlib

    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)  # fast, and with gzip's frame
    temporary = f"{target}.new"
    with open(source, "rb") as plain, open(temporary, "wb") as packed:
        while block := plain.read(COPY_BYTES):
            packed.write(compressor.compress(block))
        packed.write(compressor.flush())
    os.rename(temporary, target)


def open_files(path: str) -> list[tuple[int, bool]]:
    """All files of a log, oldest first, as (descriptor, compressed); the caller closes them.

    A rotation in between is noticed and the files are opened anew, so that none is missed or doubled.
    """
    while True:
        files = open_present(path)
        if not files or same_file(path, files[-1][0]):
            return files
        for fd, _ in files:
            os.close(fd)


def open_present(path: str) -> list[tuple[int, bool]]:
    current = open_if_there(path)
    if current is None:
        return []
    files = [(current, False)]
    number = 1
    while True:
        plain = open_if_there(f"{path}.{number}")
        packed = open_if_there(f"{path}.{number}.gz") if plain is None else None
        if plain is not None:
            files.append((plain, False))
        elif packed is not None:
            files.append((packed, True))
        else:
            break
        number += 1
    files.reverse()
    return files


def open_if_there(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def same_file(path: str, fd: int) -> bool:
    """Whether `path` still names the file that `fd` is."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)
