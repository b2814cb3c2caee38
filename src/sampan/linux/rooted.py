"""Paths inside a root file system that somebody hostile may have filled.

Every path is resolved by openat2(2) with RESOLVE_IN_ROOT from a file descriptor of the root:
absolute links and `..` stay inside, magic links are refused. What comes back is a file descriptor,
so that a later rename changes nothing about what was found.
"""

from __future__ import annotations

import os
import stat

from sampan.linux import syscalls as sys

_INSIDE = sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS
_MAXIMUM_LINKS = 40


def open_inside(root_fd: int, path: str, flags: int = sys.O_PATH, *, mode: int = 0) -> int:
    """Open `path` as a process chrooted to the root would; `flags` and `mode` of open(2).

    Raises:
        OSError: of openat2(2), naming the path.
    """
    return sys.openat2(root_fd, path, flags, mode=mode, resolve=_INSIDE)


def make_directory(root_fd: int, path: str, *, mode: int = 0o755) -> tuple[int, bool]:
    """Make the directory `path` and its parents where missing; (O_PATH fd, was it made?).

    Symbolic links on the way are followed inside the root, also those whose target is missing:
    the target is then made.

    Raises:
        OSError: ENOTDIR if something else is in the way, ELOOP for links in a circle.
    """
    flags = sys.O_PATH | os.O_DIRECTORY
    try:
        return open_inside(root_fd, path, flags), False
    except FileNotFoundError:
        pass
    _make_missing(root_fd, path, mode)
    return open_inside(root_fd, path, flags), True


def make_file(root_fd: int, path: str, *, mode: int = 0o644) -> tuple[int, bool]:
    """Make an empty file where `path` names nothing, and its parents; (O_PATH fd, was it made?).

    What exists already, of whatever kind, is opened as it is.
    """
    try:
        return open_inside(root_fd, path), False
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    directory, _ = make_directory(root_fd, parent or "/")
    try:
        target = _link_target(directory, name)
        if target is not None:
            return make_file(root_fd, _follow(parent, target), mode=mode)
        fd = os.open(
            name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=directory
        )
        os.close(fd)
        return sys.openat2(directory, name, sys.O_PATH | os.O_NOFOLLOW, resolve=_INSIDE), True
    finally:
        os.close(directory)


def parent_inside(root_fd: int, path: str) -> tuple[int, str]:
    """(O_PATH fd of the directory of `path`, made where missing; last component)."""
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(22, "no file name", path)
    return make_directory(root_fd, parent or "/")[0], name


def _make_missing(root_fd: int, path: str, mode: int) -> None:
    pending = [part for part in path.split("/") if part not in ("", ".")]
    made = ""
    links = 0
    while pending:
        name = pending.pop(0)
        step = f"{made}/{name}"
        try:
            fd = open_inside(root_fd, step, sys.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            parent = open_inside(root_fd, made or "/", sys.O_PATH | os.O_DIRECTORY)
            try:
                target = _link_target(parent, name)
                if target is None:
                    _mkdir(parent, name, mode)
            finally:
                os.close(parent)
            if target is not None:
                links += 1
                if links > _MAXIMUM_LINKS:
                    raise OSError(40, "too many levels of symbolic links", path) from None
                pending = [
                    part for part in _follow(made, target).split("/") if part not in ("", ".")
                ] + pending
                made = ""
                continue
        else:
            os.close(fd)
        made = step


def _mkdir(parent: int, name: str, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass  # made by somebody beside us; opening it tells what it is


def _link_target(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def _follow(directory: str, target: str) -> str:
    return target if target.startswith("/") else f"{directory}/{target}"


def is_device(fd: int, major: int, minor: int) -> bool:
    """Is this the character device with these numbers?"""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(major, minor)
