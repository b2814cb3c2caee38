"""Which file goes where in a `cp`: docker's rules for the two paths.

A path that ends in `/` or `/.` asks for a directory, and `/.` for what is in it. A destination that is a
directory gets the source under its own name, one that does not exist becomes it.

Source: moby, pkg/archive/copy.go; docs of `docker cp`.
"""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.snapshots.places import base, keep_ending

_LINKS_MAX = 10


class CopyInfo:
    """One end of a copy; `rebase` is the name that the source was asked for by, where it has another."""

    __slots__ = ("exists", "is_directory", "path", "rebase")

    def __init__(
        self, path: str, *, exists: bool = False, is_directory: bool = False, rebase: str = ""
    ) -> None:
        self.path = path
        self.exists = exists
        self.is_directory = is_directory
        self.rebase = rebase


def split_argument(text: str) -> tuple[str, str]:
    """(container, path) of an argument; the container is "" for a path of this machine."""
    container, colon, path = text.partition(":")
    if text.startswith("/") or not colon or container.startswith("."):
        return "", text
    return container, path


def local_path(path: str) -> str:
    """An absolute path of this machine, with its own ending."""
    return keep_ending(os.path.abspath(path).replace("//", "/", 1), path)


def split_entry(path: str) -> tuple[str, str]:
    """(directory, name) of a path; the name is "." for one that ends in `/.`."""
    cleaned = os.path.normpath(path)
    if base(path) == ".":
        return cleaned, "."
    return os.path.dirname(cleaned) or ".", base(cleaned)


def rebased(path: str, target: str) -> tuple[str, str]:
    """Where a link led, with the ending that was asked for, and the name to keep, if it is another."""
    target = keep_ending(target, path)
    return target, base(path) if base(path) != base(target) else ""


def destination(copied: CopyInfo, target: CopyInfo) -> tuple[str, str]:
    """(directory to extract to, name of the source there).

    Raises:
        CommandError: what is copied cannot take that place; in docker's words.
    """
    directory, name = split_entry(target.path)
    own = copied.rebase or split_entry(copied.path)[1]
    if target.exists and target.is_directory:
        return target.path, own
    if target.exists and copied.is_directory:
        raise CommandError("cannot copy directory")
    asks_for_directory = target.path.endswith("/") or base(target.path) == "."
    if not target.exists and not copied.is_directory and asks_for_directory:
        raise CommandError("no such directory")
    return directory, name


def local_source(path: str, *, follow: bool) -> CopyInfo:
    """A source on this machine.

    Raises:
        CommandError: it is not there.
    """
    try:
        if follow:
            found, rebase = rebased(path, os.path.realpath(path, strict=True))
        else:
            head, _, name = path.rpartition("/")
            above = os.path.realpath(head or "/", strict=True)
            found = f"{above.rstrip('/')}/{name}"
            rebase = base(path) if path.endswith("/") and base(path) != base(found) else ""
        status = os.lstat(found)
    except OSError as error:
        raise CommandError(f"lstat {error.filename}: {str(error.strerror).lower()}") from None
    return CopyInfo(found, exists=True, is_directory=_is_directory(status), rebase=rebase)


def local_destination(path: str) -> CopyInfo:
    """A destination on this machine, behind all links.

    Raises:
        CommandError: its directory is not there, or links lead in a circle.
    """
    original = path
    for _ in range(_LINKS_MAX + 2):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            _check_parent(path)
            return CopyInfo(path)
        except OSError as error:
            raise CommandError(f"lstat {path}: {str(error.strerror).lower()}") from None
        if not _is_link(status):
            return CopyInfo(path, exists=True, is_directory=_is_directory(status))
        path = os.path.join(split_entry(path)[0], os.readlink(path))
    raise CommandError(f"too many symlinks in {original}")


def _check_parent(path: str) -> None:
    parent = split_entry(path)[0]
    if not os.path.exists(parent):
        raise CommandError(f"stat {parent}: no such file or directory")
    if not os.path.isdir(parent):
        raise CommandError("not a directory")


def _is_directory(status: os.stat_result) -> bool:
    return status.st_mode & 0o170000 == 0o040000


def _is_link(status: os.stat_result) -> bool:
    return status.st_mode & 0o170000 == 0o120000
