"""Writing the data of a layer's files.

Where a file holds nothing but zeros it gets a hole: a disk image or a database file that was
sparse when its layer was made takes no more room afterwards, though the layer spells out its zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from sampan.oci import tar

HOLE = 64 << 10
"""What is looked at at once, aligned to this in the file: zeros of this length become a hole."""
_ZEROS = bytes(HOLE)


def write(fd: int, entry: tar.Entry, pieces: Iterable[memoryview]) -> None:
    """Write an entry's data to a new, empty file."""
    if entry.segments is not None:
        _write_segments(fd, entry, pieces)
    elif entry.size < HOLE:
        for piece in pieces:
            _write_all(fd, piece)
    else:
        _write_with_holes(fd, entry.size, pieces)


def _write_all(fd: int, piece: memoryview) -> None:
    while (written := os.write(fd, piece)) < len(piece):
        piece = piece[written:]


def _write_with_holes(fd: int, size: int, pieces: Iterable[memoryview]) -> None:
    offset = 0
    end = 0  # of the file as it is
    for piece in pieces:
        for start, stop in _stretches(piece, offset):
            if end != offset + start:
                os.lseek(fd, offset + start, os.SEEK_SET)
            _write_all(fd, piece[start:stop])
            end = offset + stop
        offset += len(piece)
    if end != size:
        os.ftruncate(fd, size)


def _stretches(piece: memoryview, offset: int) -> Iterator[tuple[int, int]]:
    """The parts of a piece between its holes; `offset` is where the piece is in the file."""
    start = at = 0
    length = len(piece)
    while at < length:
        stop = min(length, at + HOLE - (offset + at) % HOLE)
        # Most data differs in its first byte, and is not compared further.
        if not piece[at] and bytes(piece[at:stop]) == _ZEROS[: stop - at]:
            if start < at:
                yield start, at
            start = stop
        at = stop
    if start < length:
        yield start, length


def _write_segments(fd: int, entry: tar.Entry, pieces: Iterable[memoryview]) -> None:
    """Write a file that is sparse in the archive already."""
    segments = iter(entry.segments or ())
    offset = length = 0
    for piece in pieces:
        while piece:
            while not length:
                offset, length = next(segments)
            part = piece[:length]
            os.lseek(fd, offset, os.SEEK_SET)
            _write_all(fd, part)
            offset += len(part)
            length -= len(part)
            piece = piece[len(part) :]
    os.ftruncate(fd, entry.size)
