"""Trees as tar archives: entries made from what lies in open directories, in pieces as they come.

The same tree always gives the same bytes: names in order, attributes in order, nothing of the
machine but what the tree has. Holes are written as zeros, since where a file has its holes is not
part of its content; they are not read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from sampan.errors import RuntimeFailure
from sampan.oci import tar, tar_writer
from sampan.oci.tar import Entry
from sampan.snapshots.view import Directory

PIECE = 1 << 20
_FLUSH = 256 << 10
_ZEROS = bytes(PIECE)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.EINVAL))
_KINDS = {
    stat.S_IFREG: tar.FILE,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}
# overlayfs's own marks, and labels that mean something on this machine only.
_LEFT_OUT = ("trusted.overlay.", "user.overlay.", "trusted.sampan.")
_LABELS = frozenset(("security.selinux", "security.ima", "security.evm"))
_LOWER_DATA = frozenset(("trusted.overlay.redirect", "trusted.overlay.metacopy"))


class TarStream:
    """One archive being made; `pending` bytes are handed out by `pieces` and `finish`.

    `under` stands before every name in it; it ends in a slash, if it is not empty.
    """

    def __init__(self, under: bytes = b"") -> None:
        self._under = under
        self._parts: list[bytes] = []
        self._size = 0
        self._links: dict[tuple[int, int], bytes] = {}  # (device, inode) of names with others

    def add(
        self,
        directory: Directory,
        name: bytes,
        status: os.stat_result,
        layer: int,
        *,
        called: bytes = b"",
    ) -> bool:
        """Put in anything but a regular file, under its own name or as it is to be `called`.

        False: there is nothing to put in, a socket or what vanished meanwhile.
        """
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None or kind == tar.FILE:
            return False
        path = called or self._path(directory, name)
        entry = _entry(path, kind, status)
        try:
            if kind == tar.SYMLINK:
                entry.link = os.readlink(name, dir_fd=directory.fd(layer))
            target = b"/proc/self/fd/%d/%b" % (directory.fd(layer), name)
            entry.xattrs = xattrs_of(target, path)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return False
        if kind == tar.DIRECTORY:
            entry.name += b"/"
        else:
            self._link(entry, status)
        self._put(tar_writer.header(entry))
        return True

    def add_file(
        self, directory: Directory, name: bytes, layer: int, *, called: bytes = b""
    ) -> Iterator[bytes]:
        """Put a regular file in, with its content; pieces to hand out come meanwhile.

        The size is that of the moment it is opened. Where it shrinks after that, zeros follow.
        """
        try:
            fd = _open_file(name, directory.fd(layer))
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return
        try:
            status = os.fstat(fd)
            path = called or self._path(directory, name)
            entry = _entry(path, tar.FILE, status)
            entry.xattrs = xattrs_of(fd, path)
            if self._link(entry, status):
                self._put(tar_writer.header(entry))
                return
            entry.size = status.st_size
            self._put(tar_writer.header(entry))
            for piece in _content(fd, status):
                self._put(piece)
                if self._size >= _FLUSH:
                    yield self.take()
            self._put(tar_writer.padding(entry.size))
        finally:
            os.close(fd)

    def add_root(self, fd: int) -> None:
        """Put in what the root directory itself has: owner, mode, attributes."""
        entry = _entry(self._under or b"./", tar.DIRECTORY, os.fstat(fd))
        entry.xattrs = xattrs_of(fd, b".")
        self._put(tar_writer.header(entry))

    def add_mark(self, path: bytes) -> None:
        """Put an empty file in that stands for something that is gone."""
        entry = Entry(path, tar.FILE)
        entry.mode = 0o600
        self._put(tar_writer.header(entry))

    def pieces(self) -> Iterator[bytes]:
        """What has come together, if it is worth a piece."""
        if self._size >= _FLUSH:
            yield self.take()

    def take(self) -> bytes:
        """All that has come together."""
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return data

    def finish(self) -> bytes:
        """The rest, with the end mark."""
        self._put(tar_writer.END)
        return self.take()

    def _path(self, directory: Directory, name: bytes) -> bytes:
        below = directory.path + b"/" + name if directory.path else name
        return self._under + below

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)

    def _link(self, entry: Entry, status: os.stat_result) -> bool:
        """Make an entry a hard link, if its file is in the archive under another name."""
        if status.st_nlink < 2:
            return False
        key = (status.st_dev, status.st_ino)
        first = self._links.setdefault(key, entry.name)
        if first == entry.name:
            return False
        entry.kind = tar.HARD_LINK
        entry.link = first
        entry.xattrs = {}
        return True


def xattrs_of(target: int | bytes, path: bytes) -> dict[bytes, bytes]:
    """The extended attributes that are the tree's own, in order.

    Raises:
        RuntimeFailure: the content or the name lies elsewhere, by overlayfs's marks.
    """
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target) if follow else os.listxattr(target, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    found = {}
    for name in sorted(names):
        if name in _LOWER_DATA:
            raise RuntimeFailure(
                "diff",
                f"/{os.fsdecode(path)} was made with overlayfs's redirect_dir or metacopy",
                hint="Sampan mounts without them; who else mounted this container's layer?",
            )
        if name.startswith(_LEFT_OUT) or name in _LABELS:
            continue
        try:
            found[os.fsencode(name)] = os.getxattr(target, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno != errno.ENODATA:  # gone meanwhile
                raise
    return found


def _entry(path: bytes, kind: bytes, status: os.stat_result) -> Entry:
    entry = Entry(path, kind)
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    entry.mtime_ns = status.st_mtime_ns
    if kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
        entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry


def _open_file(name: bytes, directory: int) -> int:
    """Open a regular file, and nothing but that: opening a device can do harm by itself.

    Raises:
        OSError: ENOENT also where the name has become something else.
    """
    found = os.open(name, _PATH, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise FileNotFoundError(errno.ENOENT, "no regular file any more", name)
        path, flags = f"/proc/self/fd/{found}", _FILE & ~os.O_NOFOLLOW
        try:
            return os.open(path, flags)
        except PermissionError:  # of somebody else, and this process is not root's
            return os.open(path, flags & ~os.O_NOATIME)
    finally:
        os.close(found)


def _content(fd: int, status: os.stat_result) -> Iterator[bytes]:
    """Exactly `st_size` bytes, holes as zeros that nobody read."""
    if status.st_blocks * 512 >= status.st_size:
        yield from _read(fd, status.st_size)
        return
    position = 0
    while position < status.st_size:
        start = _seek(fd, position, os.SEEK_DATA, status.st_size)
        yield from _zeros(start - position)
        if start >= status.st_size:
            return
        position = _seek(fd, start, os.SEEK_HOLE, status.st_size)
        os.lseek(fd, start, os.SEEK_SET)
        yield from _read(fd, position - start)


def _seek(fd: int, position: int, whence: int, size: int) -> int:
    """The next data or hole, within the size that the file had."""
    try:
        return min(os.lseek(fd, position, whence), size)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a file system that knows nothing of holes, as sysfs
            return position if whence == os.SEEK_DATA else size
        if error.errno != errno.ENXIO:  # no more data
            raise
        return size


def _read(fd: int, size: int) -> Iterator[bytes]:
    while size:
        piece = os.read(fd, min(size, PIECE))
        if not piece:
            yield from _zeros(size)
            return
        size -= len(piece)
        yield piece


def _zeros(size: int) -> Iterator[bytes]:
    while size:
        piece = _ZEROS[:size] if size < PIECE else _ZEROS
        size -= len(piece)
        yield piece
