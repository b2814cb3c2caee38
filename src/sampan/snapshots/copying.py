"""Copying a directory out of a stack of trees: what an image has where a volume is mounted.

The stack is read as overlayfs shows it (`sampan.snapshots.view`). Owners, modes, times, extended
attributes and hard links are kept, holes stay holes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from sampan.snapshots.tar_stream import xattrs_of
from sampan.snapshots.view import Directory, View, walk

_LINKS_MAX = 40  # as many as the kernel follows, see path_resolution(7)
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_directory(trees: Sequence[str], path: str, target: str) -> bool:
    """Copy what `trees` (top first) show in the directory `path` into the empty directory `target`.

    `target` itself gets the owner, mode and times. Links on the way to `path` are followed inside
    of the stack. False: there is no such directory. Blocks.

    Raises:
        OSError: a file cannot be read or written; what was copied stays.
    """
    with View(trees) as view:
        source = _find(view, os.fsencode(path))
        if source is None:
            return False
        root = os.open(target, _DIRECTORY)
        try:
            _copy(view, source, root)
            _take_attributes(source, root)
        finally:
            os.close(root)
    return True


def _find(view: View, path: bytes) -> Directory | None:
    """The directory at a path, links followed."""
    if not view.has_layers:
        return None
    pending = [part for part in path.split(b"/") if part not in (b"", b".")]
    here = [view.root()]
    links = 0
    while pending:
        name = pending.pop(0)
        if name == b"..":
            if len(here) > 1:
                here.pop()
            continue
        found = here[-1].find(name, here[-1].layers)
        if found is None:
            return None
        if stat.S_ISLNK(found.status.st_mode):
            links += 1
            if links > _LINKS_MAX:
                return None
            link = os.readlink(name, dir_fd=here[-1].fd(found.layers[0]))
            if link.startswith(b"/"):
                del here[1:]
            pending[:0] = [part for part in link.split(b"/") if part not in (b"", b".")]
            continue
        below = None
        if stat.S_ISDIR(found.status.st_mode):
            below = view.enter(here[-1], name, found.layers)
        if below is None:
            return None
        here.append(below)
    return here[-1]


def _copy(view: View, source: Directory, root: int) -> None:
    """Everything below `source`; directories get their attributes when all is in them."""
    prefix = len(source.path) + 1 if source.path else 0
    made: list[tuple[bytes, os.stat_result, dict[bytes, bytes]]] = []
    links: dict[tuple[int, int], bytes] = {}
    for directory, name, found in walk(view, source):
        path = (directory.path + b"/" + name)[prefix:] if directory.path else name
        status, layer = found.status, found.layers[0]
        parent = _open_parent(root, path)
        try:
            xattrs = xattrs_of(b"/proc/self/fd/%d/%b" % (directory.fd(layer), name), path)
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=parent)
                made.append((path, status, xattrs))
                continue
            key = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and key in links:
                os.link(links[key], name, src_dir_fd=root, dst_dir_fd=parent, follow_symlinks=False)
                continue
            links[key] = path
            _copy_one(directory.fd(layer), parent, name, status)
            _set_attributes(parent, name, status, xattrs)
        except FileNotFoundError:
            continue  # it vanished meanwhile
        finally:
            os.close(parent)
    for path, status, xattrs in reversed(made):
        parent = _open_parent(root, path)
        try:
            _set_attributes(parent, path.rpartition(b"/")[2], status, xattrs)
        finally:
            os.close(parent)


def _open_parent(root: int, path: bytes) -> int:
    """The directory that was made for a path's last component; no link is followed."""
    fd = os.dup(root)
    for part in path.split(b"/")[:-1]:
        below = os.open(part, _DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def _copy_one(source: int, target: int, name: bytes, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        _copy_file(source, target, name)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif not stat.S_ISSOCK(mode):
        os.mknod(name, mode, status.st_rdev, dir_fd=target)


def _copy_file(source: int, target: int, name: bytes) -> None:
    read = os.open(name, _OPEN, dir_fd=source)
    try:
        write = os.open(name, _CREATE, 0o600, dir_fd=target)
        try:
            size = os.fstat(read).st_size
            for begin, end in _data(read, size):
                os.lseek(write, begin, os.SEEK_SET)
                while begin < end and (sent := os.sendfile(write, read, begin, end - begin)):
                    begin += sent
            os.ftruncate(write, size)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: (begin, end) of each piece between its holes."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # a hole up to the end
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end


def _set_attributes(
    parent: int, name: bytes, status: os.stat_result, xattrs: dict[bytes, bytes]
) -> None:
    if stat.S_ISSOCK(status.st_mode):
        return
    os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
    target = b"/proc/self/fd/%d/%b" % (parent, name)
    for key, value in xattrs.items():
        _set_xattr(target, key, value)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def _take_attributes(source: Directory, root: int) -> None:
    fd = source.fd(source.layers[0])
    status = os.fstat(fd)
    os.fchown(root, status.st_uid, status.st_gid)
    for key, value in xattrs_of(fd, source.path).items():
        _set_xattr(root, key, value)
    os.fchmod(root, stat.S_IMODE(status.st_mode))
    os.utime(root, ns=(status.st_atime_ns, status.st_mtime_ns))


def _set_xattr(target: bytes | int, key: bytes, value: bytes) -> None:
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
