"""Deleting and emptying trees that a container could write to.

Such a tree may be deeper than any recursion, and hold immutable or append-only files; it cannot
lead out, as nothing here follows a link.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
import struct

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
_FS_LOCKED = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL
_DEPTH_MAX = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_numbers = itertools.count()


def remove_tree(path: str) -> None:
    """Delete a directory and all in it; a missing one is no failure.

    Beyond a depth of 64, directories are moved up beside `path` and deleted from there.

    Raises:
        OSError: something in it cannot be deleted (mounted over, read-only).
    """
    pending = [path]
    above = os.path.dirname(path)
    while pending:
        doomed = pending.pop()
        try:
            fd = os.open(doomed, _DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            _empty(fd, above, pending, 0)
        finally:
            os.close(fd)
        _unlocked(os.rmdir, doomed, None)


def empty_directory(path: str) -> None:
    """Delete all that a directory holds."""
    pending: list[str] = []
    fd = os.open(path, _DIRECTORY)
    try:
        _empty(fd, os.path.dirname(path), pending, 0)
    finally:
        os.close(fd)
    for doomed in pending:
        remove_tree(doomed)


def reset_directory(path: str, size_max: int) -> bool:
    """Empty a directory and make it as good as new: root's, 0755, without attributes.

    False: it is not worth it, because it grew beyond `size_max` bytes (directories do not shrink)
    or cannot be brought back.
    """
    empty_directory(path)
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) or found.st_size > size_max:
        return False
    for name in os.listxattr(path, follow_symlinks=False):
        os.removexattr(path, name, follow_symlinks=False)
    if found.st_uid or found.st_gid:
        os.chown(path, 0, 0)
    if stat.S_IMODE(found.st_mode) != 0o755:
        os.chmod(path, 0o755)
    return True


def _empty(fd: int, above: str, pending: list[str], depth: int) -> None:
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            _unlocked(os.unlink, name, fd)
        elif depth == _DEPTH_MAX:
            moved = os.path.join(above, f".deep-{os.getpid()}-{next(_numbers)}")
            os.rename(name, moved, src_dir_fd=fd)
            pending.append(moved)
        else:
            below = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                _empty(below, above, pending, depth + 1)
            finally:
                os.close(below)
            _unlocked(os.rmdir, name, fd)


def _unlocked(remove: object, name: str, dir_fd: int | None) -> None:
    """unlink or rmdir; on EPERM once more after clearing the immutable and append-only flags."""
    call = os.unlink if remove is os.unlink else os.rmdir
    try:
        call(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        _make_mutable(name, dir_fd)
        if dir_fd is not None:
            _clear_flags(dir_fd)
        call(name, dir_fd=dir_fd)


def _make_mutable(name: str, dir_fd: int | None) -> None:
    # What the name leads to may be exchanged meanwhile, and opening a device can do harm by itself.
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        mode = os.fstat(found).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        _clear_flags(fd)
    finally:
        os.close(fd)


def _clear_flags(fd: int) -> None:
    (flags,) = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(4)))
    if flags & _FS_LOCKED:
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", flags & ~_FS_LOCKED))
