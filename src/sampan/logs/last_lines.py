"""The last lines of a log, within a budget: one read of its end, none of what is before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of the file, for some text: an entry has 60 bytes around it, and escapes take up to six times theirs.
READ_FACTOR = 8
READ_FLOOR_BYTES = 16 << 10


class Line(msgspec.Struct):
    """An entry: its text without the end of the line, `stdout` or `stderr`, and RFC 3339."""

    log: str = ""
    stream: str = ""
    time: str = ""


_decode = msgspec.json.Decoder(Line).decode


def last_lines(path: str, lines: int, size_bytes: int) -> Sequence[Line]:
    """Up to so many last lines of a json-file log, oldest first, of so many bytes of text in all.

    A line that is too long keeps its end. What does not fit is left out, and what is no entry.
    Where the file has just been rotated, the end of the one before is read too.

    Raises:
        OSError: it cannot be read; a log that is not there has no lines.
    """
    if lines <= 0:
        return []
    found: list[Line] = []
    for name in (path, f"{path}.1"):
        found = _of_file(name, lines - len(found), size_bytes) + found
        if len(found) >= lines:
            break
    return _fitting(found, size_bytes)


def _of_file(path: str, lines: int, size_bytes: int) -> list[Line]:
    wanted = max(READ_FLOOR_BYTES, size_bytes * READ_FACTOR)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - wanted)
        data = os.pread(fd, wanted, start)
    finally:
        os.close(fd)
    entries = data.split(b"\n")[1 if start else 0 : -1]
    return [line for entry in entries[-lines:] for line in _line(entry)]


def _line(entry: bytes) -> list[Line]:
    try:
        line = _decode(entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    line.log = line.log.rstrip("\r\n")
    return [line]


def _fitting(lines: list[Line], size_bytes: int) -> list[Line]:
    kept: list[Line] = []
    left = size_bytes
    for line in reversed(lines):
        data = line.log.encode(errors="replace")
        if len(data) > left:
            if kept:
                break
            line.log = "…" + data[len(data) - left :].decode(errors="ignore")
        left -= len(data)
        kept.append(line)
        if left <= 0:
            break
    kept.reverse()
    return kept
