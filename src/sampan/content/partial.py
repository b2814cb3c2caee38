"""A blob that arrives piece by piece and may do so over several lives of the engine.

Its bytes lie under a name made of its digest, so the next attempt, in this process or a later one,
continues where the last one stopped. What is there is hashed again before anything is added:
the digest covers every byte that the file has.
"""

from __future__ import annotations

import hashlib
import os

from sampan.errors import InvalidArgument
from sampan.oci.digest import Digest

_PIECE = 1 << 20


class DigestMismatch(InvalidArgument):
    """The bytes are not those that their digest names."""


class Partial:
    """One blob being fetched. One writer at a time; any number of readers of `path`.

    Everything here blocks, and runs in a thread. Life: `resume`, `write` …, `verify`, `commit`; or
    `suspend` (kept for a later attempt), or `discard`.
    """

    def __init__(self, digest: Digest, path: str, place: str) -> None:
        self.digest = digest
        self.path = path
        self.size = 0
        """Bytes on disk that are hashed."""
        self._place = place
        self._sha256 = hashlib.sha256()
        self._fd = -1

    def resume(self, limit: int) -> int:
        """Open the file and hash what earlier attempts left, `limit` bytes at most; the size.

        Raises:
            OSError: of the disk.
        """
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = os.fstat(self._fd).st_size
        if found > limit:  # not written by these rules
            os.ftruncate(self._fd, 0)
        while self.size < limit and (piece := os.read(self._fd, min(_PIECE, limit - self.size))):
            self._sha256.update(piece)
            self.size += len(piece)
        return self.size

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes at the end. What a full disk did not take is not counted.

        Raises:
            OSError: of the disk; the bytes up to `size` stay good.
        """
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self._sha256.update(view[:written])
            self.size += written
            view = view[written:]

    def verify(self, size: int) -> None:
        """Check length and digest of the whole.

        Raises:
            DigestMismatch: these are not the bytes that were asked for; they are kept until
                `restart` or `discard`.
        """
        found = Digest("sha256:" + self._sha256.hexdigest())
        if self.size != size or found != self.digest:
            raise DigestMismatch(f"filesystem layer verification failed for digest {self.digest}")

    def restart(self) -> None:
        """Begin anew with an empty file; who reads the old bytes goes on reading zeros or nothing.

        Raises:
            OSError: of the disk.
        """
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._sha256 = hashlib.sha256()
        self.size = 0

    def commit(self) -> None:
        """Move a verified blob to its place in the store; nothing to do when that was done.

        Raises:
            OSError: of the disk.
        """
        self.suspend()
        try:
            os.rename(self.path, self._place)
        except FileNotFoundError:
            if not os.path.exists(self._place):
                raise

    def suspend(self) -> None:
        """Let go of the file, which stays for a later attempt."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Drop what was fetched."""
        self.suspend()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
