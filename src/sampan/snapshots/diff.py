"""What a container changed: as a list, as the tar of a layer; and all that it sees, as a tar.

`upper` is the directory of what the container wrote, `lowers` what it stands on, top first. All
three block and are for a thread; the container may run meanwhile, then what it does in that time may
or may not be seen.

Source: OCI image-spec, layer.md "Creating", "Whiteouts"; what counts as changed is dockerd's rule
(`docker diff`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from sampan.snapshots.tar_stream import TarStream, xattrs_of
from sampan.snapshots.view import Directory, View, is_whiteout, walk

_WHITEOUT = b".wh."
_OPAQUE_MARK = b".wh..wh..opq"
_CAPABILITY = "security.capability"
_TOP = 0


class ChangeKind(IntEnum):
    """Docker's numbers."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class Change(NamedTuple):
    """One changed path of a container, absolute; names that are no UTF-8 have surrogates."""

    path: str
    kind: ChangeKind


def changes(upper: str, lowers: Sequence[str]) -> list[Change]:
    """What differs from the image: sorted, each directory before what is in it.

    A directory in which something changed counts as modified itself. What was only copied up by
    overlayfs, or changed back, does not count.
    """
    comparison = _Comparison()
    with View([upper]) as mine, View(lowers) as theirs:
        _descend(mine, theirs, comparison.level, comparison.name)
    return comparison.found


def layer_tar(upper: str, lowers: Sequence[str]) -> Iterator[bytes]:
    """The layer that makes of the lower trees what the container sees, in pieces.

    A container that changed nothing gives the end mark alone.
    """
    stream = TarStream()
    with View([upper]) as mine, View(lowers) as theirs:
        top, below = mine.root(), theirs.root() if lowers else None
        pending = [_Level(top, below, None)]
        root = top.fd(_TOP)
        if _root_differs(root, below) or (pending[0].names and not _is_usual_root(root)):
            stream.add_root(root)
        while pending:
            level = pending[-1]
            if not level.names:
                pending.pop().close()
                continue
            name = level.names.pop()
            yield from _layer_entry(stream, level, name, pending, mine, theirs)
            yield from stream.pieces()
    yield stream.finish()


def tree_tar(upper: str, lowers: Sequence[str]) -> Iterator[bytes]:
    """The whole tree that the container sees, without what is mounted in it, in pieces."""
    stream = TarStream()
    with View([upper, *lowers]) as view:
        stream.add_root(view.root().fd(_TOP))
        for directory, name, found in walk(view):
            if stat.S_ISREG(found.status.st_mode):
                yield from stream.add_file(directory, name, found.layers[0])
            else:
                stream.add(directory, name, found.status, found.layers[0])
            yield from stream.pieces()
    yield stream.finish()


class _Level:
    """A directory of the upper tree on the way down, and what the lower trees show in its place.

    `names` are left to do, the next one last.
    """

    __slots__ = ("above", "below", "directory", "listed", "names", "opaque")

    def __init__(self, directory: Directory, below: Directory | None, above: _Level | None) -> None:
        self.directory = directory
        self.below = below
        self.above = above
        self.opaque = above is not None and directory.is_opaque(_TOP)
        self.names = directory.names(_TOP)
        self.names.reverse()
        self.listed = above is None

    def beneath(self, name: bytes) -> os.stat_result | None:
        """What the lower trees have under this name."""
        found = None if self.below is None else self.below.find(name, self.below.layers)
        return None if found is None else found.status

    def enter(self, name: bytes, mine: View, theirs: View) -> _Level | None:
        """One level down, if the upper tree still has a directory there."""
        directory = mine.enter(self.directory, name, (_TOP,))
        if directory is None:
            return None
        below = None
        if self.below is not None:
            found = self.below.find(name, self.below.layers)
            if found is not None and stat.S_ISDIR(found.status.st_mode):
                below = theirs.enter(self.below, name, found.layers)
        return _Level(directory, below, self)

    def path_of(self, name: bytes) -> bytes:
        return self.directory.path + b"/" + name if self.directory.path else name

    def close(self) -> None:
        self.directory.close()
        if self.below is not None:
            self.below.close()


# -- The layer's tar ---------------------------------------------------------------------------


def _layer_entry(
    stream: TarStream,
    level: _Level,
    name: bytes,
    pending: list[_Level],
    mine: View,
    theirs: View,
) -> Iterator[bytes]:
    status = level.directory.status(name, _TOP)
    if status is None or name.startswith(_WHITEOUT):
        return  # a layer cannot hold such a name: it would hide another one
    if is_whiteout(status):
        # A mark that hides nothing is no difference.
        if level.beneath(name) is not None:
            stream.add_mark(level.path_of(_WHITEOUT + name))
    elif stat.S_ISREG(status.st_mode):
        yield from stream.add_file(level.directory, name, _TOP)
    elif stream.add(level.directory, name, status, _TOP) and stat.S_ISDIR(status.st_mode):
        entered = level.enter(name, mine, theirs)
        if entered is None:
            return
        if entered.opaque:
            if entered.below is not None:
                stream.add_mark(level.path_of(name) + b"/" + _OPAQUE_MARK)
            entered.below = None  # nothing of it shows through
        pending.append(entered)


def _root_differs(upper: int, below: Directory | None) -> bool:
    """Whether owner, mode or attributes of the root are not those below it."""
    if below is None:
        return not _is_usual_root(upper)
    lower = below.fd(below.layers[0])
    mine, theirs = os.fstat(upper), os.fstat(lower)
    return (mine.st_mode, mine.st_uid, mine.st_gid, xattrs_of(upper, b".")) != (
        theirs.st_mode,
        theirs.st_uid,
        theirs.st_gid,
        xattrs_of(lower, b"."),
    )


def _is_usual_root(fd: int) -> bool:
    """Whether the root is what a layer has that says nothing of it."""
    status = os.fstat(fd)
    usual = (stat.S_IFDIR | 0o755, 0, 0)
    return (status.st_mode, status.st_uid, status.st_gid) == usual and not xattrs_of(fd, b".")


# -- The list ------------------------------------------------------------------------------------


def _descend(
    mine: View,
    theirs: View,
    begin: Callable[[_Level], None],
    visit: Callable[[_Level, bytes], bool],
) -> None:
    """Go through the upper tree; `visit` says whether to go down in a name."""
    pending = [_Level(mine.root(), theirs.root() if theirs.has_layers else None, None)]
    while pending:
        level = pending[-1]
        if not level.names:
            pending.pop().close()
            continue
        name = level.names.pop()
        if visit(level, name) and (entered := level.enter(name, mine, theirs)) is not None:
            begin(entered)
            pending.append(entered)


class _Comparison:
    """The changes found so far."""

    def __init__(self) -> None:
        self.found: list[Change] = []
        self._last = ""

    def level(self, level: _Level) -> None:
        """Begin a directory, whose own change was the last thing to be looked at."""
        level.listed = bool(self.found) and self.found[-1].path == _text(level.directory.path)
        if level.opaque and level.below is not None:
            # Replaced as a whole: what the old one had and the new one has not is gone.
            below = level.below
            shown = {name for name, at in below.all_names() if below.find(name, at) is not None}
            level.names = sorted(shown.union(level.names), reverse=True)

    def name(self, level: _Level, name: bytes) -> bool:
        """Compare one name; true for a directory."""
        status = level.directory.status(name, _TOP)
        beneath = level.beneath(name)
        if status is None or is_whiteout(status):
            if beneath is not None:
                self._add(level, name, ChangeKind.DELETED)
            return False
        if beneath is None:
            self._add(level, name, ChangeKind.ADDED)
        elif _differs(level, name, status, beneath):
            self._add(level, name, ChangeKind.MODIFIED)
        return stat.S_ISDIR(status.st_mode)

    def _add(self, level: _Level, name: bytes, kind: ChangeKind) -> None:
        unlisted = []
        above: _Level | None = level
        while above is not None and not above.listed:
            above.listed = True
            unlisted.append(Change(_text(above.directory.path), ChangeKind.MODIFIED))
            above = above.above
        self.found += reversed(unlisted)
        self.found.append(Change(_text(level.path_of(name)), kind))


def _text(path: bytes) -> str:
    return "/" + os.fsdecode(path)


def _differs(level: _Level, name: bytes, mine: os.stat_result, theirs: os.stat_result) -> bool:
    """dockerd's rule: of a directory, size and time say nothing."""
    if (mine.st_mode, mine.st_uid, mine.st_gid, mine.st_rdev) != (
        theirs.st_mode,
        theirs.st_uid,
        theirs.st_gid,
        theirs.st_rdev,
    ):
        return True
    if stat.S_ISDIR(mine.st_mode):
        return False
    if (mine.st_mtime_ns, mine.st_size) != (theirs.st_mtime_ns, theirs.st_size):
        return True
    return stat.S_ISREG(mine.st_mode) and _capabilities_differ(level, name)


def _capabilities_differ(level: _Level, name: bytes) -> bool:
    assert level.below is not None
    found = level.below.find(name, level.below.layers)
    mine = _capability(level.directory.fd(_TOP), name)
    return found is not None and mine != _capability(level.below.fd(found.layers[0]), name)


def _capability(directory: int, name: bytes) -> bytes:
    try:
        path = b"/proc/self/fd/%d/%b" % (directory, name)
        return os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""  # none, or gone meanwhile
