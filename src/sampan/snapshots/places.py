"""Paths in a tree that somebody hostile fills: found the way `docker cp` means them.

Everything is looked up from a descriptor of the tree's root, so that links, `..` and what is mounted
in the tree lead nowhere but into it. What is found is held open: an exchange later changes nothing.

Source: moby, pkg/archive `PreserveTrailingDotOrSeparator`; daemon/archive `ResolvePath`.
"""

from __future__ import annotations

import errno
import os
import posixpath

from sampan.linux import syscalls

_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LINKS_MAX = 40
"""As the kernel has it."""


class Place:
    """What a path names: `name` in the open directory `directory`, or that itself for b"".

    `status` is that of the name, links not followed. A context manager.
    """

    __slots__ = ("directory", "name", "status")

    def __init__(self, directory: int, name: bytes, status: os.stat_result) -> None:
        self.directory = directory
        self.name = name
        self.status = status

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.directory)


def base(path: str) -> str:
    """The last component, "/" of the root, "." of nothing (Go's path.Base)."""
    stripped = path.rstrip("/")
    return stripped.rpartition("/")[2] if stripped else "/" if path else "."


def keep_ending(cleaned: str, path: str) -> str:
    """A cleaned path with the `/.` or `/` at the end that `path` has: they ask for a directory."""
    if base(cleaned) != "." and base(path) == ".":
        cleaned += "." if cleaned.endswith("/") else "/."
    if path.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return cleaned


def absolute(path: str) -> str:
    """A path as one of the tree's root, cleaned as text, with its own ending."""
    return keep_ending(posixpath.normpath("/" + path.lstrip("/")), path)


def find(root: int, path: str) -> Place:
    """Look an absolute path up; its last component is followed if the path ends in `/` or `/.`.

    Raises:
        OSError: ENOENT, ENOTDIR, ELOOP …
    """
    head, _, name = path.rpartition("/")
    directory = syscalls.openat2(root, head or "/", _DIRECTORY, resolve=_INSIDE)
    try:
        if name in ("", "."):
            return Place(directory, b"", os.fstat(directory))
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return Place(directory, os.fsencode(name), status)
    except BaseException:
        os.close(directory)
        raise


def real_path(root: int, path: str) -> str:
    """Where a path leads, as text: all links followed, also behind what does not exist.

    Raises:
        OSError: ELOOP.
    """
    done: list[str] = []
    pending = path.split("/")[::-1]
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        target = _link(root, done, part)
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done.clear()
        pending += target.split("/")[::-1]
    return "/" + "/".join(done)


def _link(root: int, above: list[str], name: str) -> str | None:
    """What a link says; None for anything else, and where there is nothing."""
    resolve = _INSIDE | syscalls.RESOLVE_NO_SYMLINKS
    try:
        directory = syscalls.openat2(root, "/" + "/".join(above), _DIRECTORY, resolve=resolve)
    except OSError:
        return None
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None
    finally:
        os.close(directory)
