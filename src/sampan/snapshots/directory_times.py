"""The modification times of a layer's directories, kept until nothing is created in them any more."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

IN_MEMORY_MAX = 1 << 16
_TIME = struct.Struct("=qI")


class DirectoryTimes:
    """Times by path, in the order given; beyond IN_MEMORY_MAX of them in a file without a name.

    That file is in `directory`: an archive can name directories by the million.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._recent: dict[bytes, int] = {}
        self._earlier: IO[bytes] | None = None

    def put(self, path: bytes, mtime_ns: int) -> None:
        """Raises OverflowError for a time that no file can have."""
        if not -(1 << 63) <= mtime_ns < 1 << 63:
            raise OverflowError(f"impossible time: {mtime_ns} ns")
        self._recent[path] = mtime_ns
        if len(self._recent) >= IN_MEMORY_MAX:
            if self._earlier is None:
                import tempfile  # not needed for one image in a thousand

                self._earlier = tempfile.TemporaryFile(dir=self._directory)
            self._earlier.writelines(
                _TIME.pack(time, len(path)) + path for path, time in self._recent.items()
            )
            self._recent.clear()

    def all(self) -> Iterator[tuple[bytes, int]]:
        """Each path with its time; where one comes twice the last is right."""
        if self._earlier is not None:
            self._earlier.seek(0)
            while head := self._earlier.read(_TIME.size):
                time, length = _TIME.unpack(head)
                yield self._earlier.read(length), time
        yield from self._recent.items()

    def close(self) -> None:
        if self._earlier is not None:
            self._earlier.close()
