"""A collection of paths as a tar, the same bytes for the same files.

Sorted by name; times of directories and links are EPOCH unless `times` says to keep them, since they
tell when something was installed and not what; SOURCE_DATE_EPOCH is the latest time of all.
"""

from __future__ import annotations

import os
import stat

from sampan.cli.failures import CommandError
from sampan.oci import tar, tar_writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.cli.making.collection import Collection

CHUNK_BYTES = 1 << 18
NANOSECONDS = 1_000_000_000
_KINDS = {
    stat.S_IFREG: tar.FILE,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}
_KEPT_XATTRS = ("security.capability", "user.")


class Archive:
    """The tar of a collection; `files` and `size_bytes` (of their data) are known before it is read.

    `latest_s` is the time that nothing in it is younger than, None for no such limit.
    """

    def __init__(
        self, collection: Collection, *, times: bool = False, latest_s: int | None = None
    ) -> None:
        self._collection = collection
        self._times = times
        self._latest_ns = None if latest_s is None else latest_s * NANOSECONDS
        self._first: dict[tuple[int, int], str] = {}
        self.files = self.size_bytes = 0
        inodes: set[tuple[int, int]] = set()
        for status in collection.found.values():
            if stat.S_ISREG(status.st_mode):
                self.files += 1
                inode = (status.st_dev, status.st_ino)
                self.size_bytes += 0 if inode in inodes else status.st_size
                inodes.add(inode)
        for _, data in collection.made.values():
            if data is not None:
                self.files += 1
                self.size_bytes += len(data)

    def blocks(self) -> Iterator[bytes]:
        """The tar.

        Raises:
            CommandError: a file cannot be read, or is another than it was when it was collected.
        """
        collection = self._collection
        pending: list[bytes] = []  # a chunk of HTTP for each header would cost more than the header
        size = 0
        for path in sorted({*collection.found, *collection.made}):
            for piece in self._member(path):
                pending.append(piece)
                size += len(piece)
                if size >= CHUNK_BYTES:
                    yield b"".join(pending)
                    pending.clear()
                    size = 0
        yield b"".join(pending) + tar_writer.END

    def _member(self, path: str) -> Iterator[bytes]:
        status = self._collection.found.get(path)
        if status is None:
            mode, data = self._collection.made[path]
            yield from self._made(path, mode, data)
            return
        entry = self._entry(path, status)
        yield tar_writer.header(entry)
        if entry.kind == tar.FILE:
            yield from self._data(path, status)
            yield tar_writer.padding(entry.size)

    def _made(self, path: str, mode: int, data: bytes | None) -> Iterator[bytes]:
        name = path[1:] or "."
        if data is None:
            yield tar_writer.header(tar_writer.directory_entry(name, mode=mode))
            return
        yield tar_writer.header(tar_writer.file_entry(name, len(data), mode=mode))
        yield data + tar_writer.padding(len(data))

    def _entry(self, path: str, status: os.stat_result) -> tar.Entry:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        name = os.fsencode(path[1:]) or b"."
        entry = tar.Entry(name + b"/" if kind == tar.DIRECTORY else name, kind)
        entry.mode = stat.S_IMODE(status.st_mode)
        entry.uid, entry.gid = status.st_uid, status.st_gid
        if self._times or kind == tar.FILE:
            entry.mtime_ns = status.st_mtime_ns
            if self._latest_ns is not None:
                entry.mtime_ns = min(entry.mtime_ns, self._latest_ns)
        if kind == tar.SYMLINK:
            entry.link = os.fsencode(os.readlink(self._collection.root + path))
        elif kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        elif kind == tar.FILE:
            first = self._first.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                entry.kind, entry.link = tar.HARD_LINK, os.fsencode(first[1:])
                return entry
            entry.size = status.st_size
        if kind in (tar.FILE, tar.DIRECTORY):
            entry.xattrs = _xattrs(self._collection.root + path)
        return entry

    def _data(self, path: str, status: os.stat_result) -> Iterator[bytes]:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(self._collection.root + path, flags)
        except OSError as error:
            raise CommandError(f"cannot read {path}: {str(error.strerror).lower()}") from None
        try:
            left = status.st_size
            while left:
                piece = os.read(fd, min(left, CHUNK_BYTES))
                if not piece:
                    break
                left -= len(piece)
                yield piece
            now = os.fstat(fd)
        finally:
            os.close(fd)
        before = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if left or before != (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns):
            raise CommandError(f"{path} changed while it was read", hint="Run the command again")


def _xattrs(path: str) -> dict[bytes, bytes]:
    """What belongs into an image: not this machine's labels or overlays."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(names)
        if name.startswith(_KEPT_XATTRS)
    }


def latest_time(environ: dict[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH in seconds, None where it is not set.

    Raises:
        CommandError: it is no number.
    """
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise CommandError(f"SOURCE_DATE_EPOCH is no number of seconds: {text}")
    return int(text)
