"""What a stack of directories shows: overlayfs's rules, applied by reading the directories.

Nothing is mounted, so that a container's tree is read the same way whether it runs or not. The
upper directory may change meanwhile, by the hand of somebody hostile: names are looked up in open
directories, one component at a time, and no link is ever followed.

Source: Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sampan.errors import RuntimeFailure
from sampan.linux import syscalls
from sampan.snapshots.extract import OPAQUE

PATH_MAX = 4095
"""Longer paths than the kernel takes have no place in a layer: nobody could lay them out."""

_OPEN_MAX = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE))


class Found(NamedTuple):
    """What a name means: its status, and the directories it comes from, top first.

    Several only where directories of one name are shown as one.
    """

    status: os.stat_result
    layers: tuple[int, ...]


class View:
    """Directories stacked on each other, the top one first; a context manager."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._roots: list[int] = []
        self._open: dict[Directory, None] = {}
        try:
            for directory in directories:
                self._roots.append(_open_root(directory))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for directory in list(self._open):
            directory.close()
        for fd in self._roots:
            os.close(fd)
        self._open.clear()
        self._roots.clear()

    @property
    def has_layers(self) -> bool:
        return bool(self._roots)

    def root(self) -> Directory:
        """The root of the whole stack."""
        top = Directory(self, b"", tuple(range(len(self._roots))))
        top.layers = top.visible()
        return top

    def enter(self, directory: Directory, name: bytes, layers: Sequence[int]) -> Directory | None:
        """A directory below another one, in those layers; None if the first of them has it no more.

        Raises:
            RuntimeFailure: its path is too long.
        """
        path = directory.path + b"/" + name if directory.path else name
        if len(path) > PATH_MAX:
            raise RuntimeFailure(
                "diff",
                f"file name too long: {os.fsdecode(path[:80])}… has {len(path)} bytes",
                hint=f"paths in a layer have {PATH_MAX} bytes at most",
            )
        below = Directory(self, path, tuple(layers))
        self.remember(below)
        try:
            for layer in layers:
                below.take(layer, os.open(name, _DIRECTORY, dir_fd=directory.fd(layer)))
            below.layers = below.visible()
        except OSError as error:
            below.close()
            if error.errno not in _GONE:
                raise
            return None
        return below

    def remember(self, directory: Directory) -> None:
        """Note that a directory has descriptors; few have, however deep a tree is."""
        if len(self._open) >= _OPEN_MAX:
            for other in list(self._open):
                other.close()
            self._open.clear()
        self._open[directory] = None

    def forget(self, directory: Directory) -> None:
        """Note that a directory has no descriptors any more."""
        self._open.pop(directory, None)

    def reopen(self, path: bytes, layer: int) -> int:
        if not path:
            return os.open(".", _DIRECTORY, dir_fd=self._roots[layer])
        return syscalls.openat2(self._roots[layer], path, _DIRECTORY, resolve=_RESOLVE)


class Directory:
    """One directory of the view, `layers` being those that show through in it, top first."""

    __slots__ = ("_fds", "_view", "layers", "path")

    def __init__(self, view: View, path: bytes, layers: tuple[int, ...]) -> None:
        self._view = view
        self.path = path
        self.layers = layers
        self._fds: dict[int, int] = {}

    def take(self, layer: int, fd: int) -> None:
        """Own the descriptor of this directory in a layer."""
        self._fds[layer] = fd

    def fd(self, layer: int) -> int:
        """A descriptor of this directory in one of its layers; not the caller's to close."""
        fd = self._fds.get(layer)
        if fd is None:
            if not self._fds:
                self._view.remember(self)
            fd = self._fds[layer] = self._view.reopen(self.path, layer)
        return fd

    def close(self) -> None:
        """Close the descriptors; they are opened again when they are needed."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._view.forget(self)

    def visible(self) -> tuple[int, ...]:
        """Its layers down to the first that hides those below."""
        for at, layer in enumerate(self.layers[:-1]):
            if self.is_opaque(layer):
                return self.layers[: at + 1]
        return self.layers

    def is_opaque(self, layer: int) -> bool:
        try:
            return os.getxattr(self.fd(layer), OPAQUE) == b"y"
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return False
            raise

    def names(self, layer: int) -> list[bytes]:
        """The names in one layer, sorted."""
        return sorted(os.fsencode(name) for name in os.listdir(self.fd(layer)))

    def all_names(self) -> list[tuple[bytes, Sequence[int]]]:
        """The names in all layers, sorted, and which layers have them; some are whited out."""
        if len(self.layers) == 1:
            return [(name, self.layers) for name in self.names(self.layers[0])]
        known: dict[str, list[int]] = {}
        for layer in self.layers:
            for name in os.listdir(self.fd(layer)):
                known.setdefault(name, []).append(layer)
        return sorted((os.fsencode(name), layers) for name, layers in known.items())

    def find(self, name: bytes, layers: Sequence[int]) -> Found | None:
        """What a name means in some of the layers; None where there is nothing, or a whiteout."""
        top: os.stat_result | None = None
        owners: list[int] = []
        for layer in layers:
            status = self.status(name, layer)
            if status is None:
                continue
            if is_whiteout(status):
                break
            if not stat.S_ISDIR(status.st_mode):
                if top is None:
                    return Found(status, (layer,))
                break
            top = top or status
            owners.append(layer)
        return None if top is None else Found(top, tuple(owners))

    def status(self, name: bytes, layer: int) -> os.stat_result | None:
        """The status of a name in one layer; None if it has none."""
        try:
            return os.stat(name, dir_fd=self.fd(layer), follow_symlinks=False)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return None


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is overlayfs's mark of a name that is gone."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _open_root(directory: str) -> int:
    """A layer's root. The machine's own root is seen without what is mounted on it, as overlayfs
    sees it."""
    if directory != "/":
        return os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)  # the engine's own short names
    flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
    tree = syscalls.open_tree(syscalls.AT_FDCWD, b"/", flags)
    try:
        return os.open(".", _DIRECTORY, dir_fd=tree)
    finally:
        os.close(tree)


def walk(
    view: View,
    top: Directory | None = None,
    enters: Callable[[Directory, Found], bool] | None = None,
) -> Iterator[tuple[Directory, bytes, Found]]:
    """Everything the view shows, or shows below `top`: (directory, name, what it is), sorted, each
    directory before what is in it. What vanishes meanwhile is left out, and what is in a directory
    that it does not enter."""
    top = top or view.root()
    pending = [(top, iter(top.all_names()))]
    while pending:
        directory, names = pending[-1]
        for name, layers in names:
            found = directory.find(name, layers)
            if found is None:
                continue
            yield directory, name, found
            if stat.S_ISDIR(found.status.st_mode):
                below = view.enter(directory, name, found.layers)
                if below is not None and (enters is None or enters(below, found)):
                    pending.append((below, iter(below.all_names())))
                    break
        else:
            directory.close()
            pending.pop()
