"""Snapshots on overlayfs: committed layers below, a container's own layer on top.

    <root>/layers, <root>/l        committed layers (`sampan.snapshots.layers`)
    <root>/active/<key>/upper      what the container wrote; its base directory's attribute
                       /work       `trusted.sampan.parent` names what it stands on
    <root>/spare/<n>/              emptied or fresh upper/work pairs, waiting for their next key
    <root>/trash/<n>/              removed, being emptied by the janitor thread

A container's start and end wait for `prepare` and `remove`. On ext4 making a directory costs
20 µs, and 170 µs where many were deleted lately; a rename costs 16 µs and an attribute 4 µs. So
`prepare` renames a spare pair into place, and the janitor turns removed ones into spares.
Nothing is flushed to disk: what a container wrote is as durable as its own fsync calls made it.

One use:

    layer = snapshotter.extract(read, parent=None)
    mounts = snapshotter.prepare(container_id, layer.chain)     # performed by the runtime
    …
    snapshotter.remove(container_id)
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure
from sampan.linux.mounts import Mount
from sampan.oci.digest import ChainID, DiffID
from sampan.oci.tar import Read
from sampan.snapshots import host
from sampan.snapshots.diff import Change, changes, layer_tar, tree_tar
from sampan.snapshots.layers import EMPTY, Layer, Layers
from sampan.snapshots.sizes import SizeLimits
from sampan.snapshots.trees import remove_tree, reset_directory

log = logging.getLogger(__name__)

HOST = "host"
"""The parent that is the machine's own root file system."""
SCRATCH = ""
"""The parent of an image without layers: an empty root."""
Parent = str
"""A chain ID, HOST or SCRATCH."""

_PARENT_XATTR = b"trusted.sampan.parent"
_VOLATILE_MARK = b" volatile"
_SPARES = 32
_OPTIONS_MAX = 4095
"""mount(2) takes a page of options, its end mark included."""


class _Base(NamedTuple):
    """What stands below a container's own layer."""

    lower: str
    mode: int
    uid: int
    gid: int
    covers: tuple[str, ...] = ()  # host paths to be hidden in the container's own layer


class Snapshotter:
    """All snapshots under one root. `prepare`, `mounts` and `remove` are for one thread (the
    engine's); `extract` may run in others."""

    def __init__(self, root: str, *, hidden: Iterable[str] = ()) -> None:
        """Open the snapshots below `root`, dropping what a crash left half done.

        `hidden` are the engine's other directories (of its run-time files), not to be seen in
        the `host` image either.

        Raises:
            InvalidArgument: overlayfs's option syntax cannot name this root.
        """
        self.root = os.path.realpath(root)
        if any(character in self.root for character in ",:\\"):
            raise InvalidArgument(
                f"data root {root}: overlayfs allows no comma, colon or backslash"
            )
        self._hidden = tuple(hidden)
        self._active_directory = os.path.join(self.root, "active")
        self._spare_directory = os.path.join(self.root, "spare")
        self._trash = os.path.join(self.root, "trash")
        for directory in (self._active_directory, self._spare_directory, self._trash):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self.layers = Layers(self.root)
        self.on_release: Callable[[ChainID], object] = _nobody_cares
        """Told of the layer that a removed active snapshot stood on."""
        self._bases: dict[Parent, _Base] = {}
        self._numbers = itertools.count()
        self._active = {key: self._read_parent(key) for key in os.listdir(self._active_directory)}
        self._spares: deque[str] = deque()
        self._spare_size = 0
        self._leftovers: list[str] = []
        self._work: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._janitor = threading.Thread(target=self._clean, name="snapshots", daemon=True)
        self._adopt_spares()
        self.sizes = SizeLimits(self.root, self._pairs())
        self._spares = deque(pair for pair in self._spares if not self._is_half_limited(pair))
        self._janitor.start()

    def close(self) -> None:
        """Finish the removals under way and end the janitor. The `host` layer goes, unless a
        container stands on it."""
        self._work.put(None)
        self._janitor.join()
        if all(parent != HOST for parent, _ in self._active.values()):
            host.remove_host_layer(self.root, self._hidden)

    # -- Active snapshots ------------------------------------------------------------------------

    def prepare(
        self, key: str, parent: Parent, *, volatile: bool = False, size_bytes: int = 0
    ) -> list[Mount]:
        """Make the active snapshot `key` on top of `parent`; return the mounts of its rootfs.

        `volatile`: overlayfs leaves out every flush to disk, also the one at unmount, for a
        container that is removed when it ends. `size_bytes`: what it may take, 0 for no limit, which
        needs `sizes.supported`.

        Raises:
            Conflict: there is a snapshot `key` already.
            NotFound: there is no layer `parent`.
            RuntimeFailure: the layers are too many for one mount's options, or no limit can be set.
        """
        base = self._base(parent)
        if not key or "/" in key or key[0] == ".":
            raise InvalidArgument(f"invalid snapshot key {key!r}")
        directory = f"{self._active_directory}/{key}"
        if key in self._active:
            raise Conflict(f"snapshot {key} already exists")
        mounts = self._mounts(directory, base, volatile)
        pair = self._limited_spare(size_bytes) if size_bytes else self._spare()
        os.rename(pair, directory)
        if size_bytes:
            self.sizes.moved(pair, directory)
        value = parent.encode() + (_VOLATILE_MARK if volatile else b"")
        os.setxattr(directory, _PARENT_XATTR, value)
        if base.mode != 0o755:
            os.chmod(f"{directory}/upper", base.mode)
        if base.uid or base.gid:
            os.chown(f"{directory}/upper", base.uid, base.gid)
        if base.covers:
            host.cover(f"{directory}/upper", base.covers)
        self._active[key] = (parent, volatile)
        return mounts

    def mounts(self, key: str) -> list[Mount]:
        """The mounts of an existing active snapshot, which is not mounted now.

        Raises:
            NotFound: there is no snapshot `key`.
            RuntimeFailure: its size was limited, and the file system keeps no limits any longer.
        """
        parent, volatile = self._known(key)
        directory = f"{self._active_directory}/{key}"
        if self.sizes.is_lost(directory):
            raise RuntimeFailure(
                "quota",
                "the size of the container's file system is limited, and the file system of the data "
                "root keeps no limits any longer",
                path=directory,
                hint="mount it with the option prjquota",
            )
        if volatile:
            # The mark that overlayfs leaves so that nobody mounts what was never flushed.
            remove_tree(f"{directory}/work/work/incompat")
        return self._mounts(directory, self._base(parent), volatile)

    def remove(self, key: str) -> None:
        """Drop an active snapshot. Its name is free at once; the files go in the background.

        A missing one is no failure, so that a removal can be repeated.
        """
        parent, _ = self._active.pop(key, (SCRATCH, False))
        doomed = f"{self._trash}/{next(self._numbers)}"
        try:
            os.rename(f"{self._active_directory}/{key}", doomed)
        except FileNotFoundError:
            return
        self.sizes.moved(f"{self._active_directory}/{key}", doomed)
        self._work.put(doomed)
        if parent.startswith("sha256:"):
            self.on_release(ChainID(parent))

    def upper(self, key: str) -> str:
        """The directory of what the container wrote.

        Raises:
            NotFound: there is no snapshot `key`.
        """
        self._known(key)
        return f"{self._active_directory}/{key}/upper"

    def trees(self, parent: Parent) -> list[str]:
        """The directories that a container stands on, top first.

        Raises:
            NotFound: there is no layer `parent`.
        """
        return self._base(parent).lower.split(":")

    def usage_bytes(self, key: str) -> int:
        """The size of what the container wrote: its regular files, each inode once. Walks.

        Raises:
            NotFound: there is no snapshot `key`.
        """
        return tree_size(self.upper(key))

    def parent(self, key: str) -> Parent:
        """What a snapshot stands on.

        Raises:
            NotFound: there is no snapshot `key`.
        """
        return self._known(key)[0]

    def keys(self) -> list[str]:
        """The keys of all active snapshots."""
        return list(self._active)

    # -- What a container changed; for a thread ------------------------------------------------

    def changes(self, key: str) -> list[Change]:
        """What the container changed; see `diff.changes`.

        Raises:
            NotFound: there is no snapshot `key`.
        """
        return changes(self.upper(key), self._base(self.parent(key)).lower.split(":"))

    def layer_tar(self, key: str) -> Iterator[bytes]:
        """The layer that a commit adds to the image; see `diff.layer_tar`.

        The mount points that containers are given are not the image's, so they are no part of it.

        Raises:
            NotFound: there is no snapshot `key`.
            InvalidArgument: it stands on the machine's own root.
        """
        parent = self.parent(key)
        if parent == HOST:
            raise InvalidArgument("a container of the host image has no image to add a layer to")
        lowers = [self.layers.tree(layer.chain) for layer in self._stack(parent)]
        return layer_tar(self.upper(key), lowers)

    def tree_tar(self, key: str) -> Iterator[bytes]:
        """All that the container sees; see `diff.tree_tar`.

        Raises:
            NotFound: there is no snapshot `key`.
        """
        return tree_tar(self.upper(key), self._base(self.parent(key)).lower.split(":"))

    # -- Committed layers ------------------------------------------------------------------------

    def extract(
        self,
        read: Read,
        parent: ChainID | None = None,
        diff_id: DiffID | None = None,
        *,
        digest: Callable[[], str] | None = None,
    ) -> Layer:
        """Commit a layer from its plain tar on top of `parent`; see `Layers.extract`. Blocks."""
        return self.layers.extract(read, parent, diff_id, digest=digest)

    def warm(self, parent: Parent) -> None:
        """Do now what the first `prepare` on a parent would have to: make its mount points."""
        self._base(parent)

    def collect(self, roots: Iterable[ChainID]) -> list[Layer]:
        """Delete the layers that neither `roots` nor an active snapshot needs; return them.

        Looks at every layer; `release` is for what one change has let go.
        """
        gone = self.layers.unreachable({*roots, *self._used()})
        return [layer for chain in gone if (layer := self._retire(chain)) is not None]

    def release(self, chain: ChainID, needed: Callable[[ChainID], bool]) -> list[Layer]:
        """Delete a layer that was let go, and those below it that nothing else needs.

        It ends at the first that is `needed`, is under another layer or an active snapshot, or was
        made or looked at since `Layers.watch`.
        """
        gone = []
        for layer in self.unneeded(chain, needed):
            if self._retire(layer.chain) is None:
                break
            gone.append(layer)
        return gone

    def unneeded(self, chain: ChainID, needed: Callable[[ChainID], bool]) -> list[Layer]:
        """The layers of a stack that nothing but each other needs, top first."""
        used = self._used()
        found: list[Layer] = []
        layer = self.layers.find(chain)
        while layer is not None and not needed(layer.chain) and layer.chain not in used:
            if self.layers.children(layer.chain) > (1 if found else 0):
                break
            found.append(layer)
            layer = self.layers.find(layer.parent) if layer.parent else None
        return found

    def users(self, chain: ChainID) -> list[str]:
        """The keys of the active snapshots directly on a layer."""
        return [key for key, (parent, _) in self._active.items() if parent == chain]

    # -- Inside ----------------------------------------------------------------------------------

    def _retire(self, chain: ChainID) -> Layer | None:
        doomed = f"{self._trash}/{next(self._numbers)}"
        layer = self.layers.retire(chain, doomed)
        if layer is not None:
            self._bases.pop(chain, None)
            self._work.put(doomed)
        return layer

    def _stack(self, parent: Parent) -> list[Layer]:
        return [] if parent == SCRATCH else self.layers.stack(ChainID(parent))

    def _used(self) -> set[ChainID]:
        parents = {parent for parent, _ in self._active.values()}
        return {ChainID(parent) for parent in parents if parent.startswith("sha256:")}

    def _known(self, key: str) -> tuple[Parent, bool]:
        try:
            return self._active[key]
        except KeyError:
            raise NotFound(f"snapshot {key} does not exist") from None

    def _base(self, parent: Parent) -> _Base:
        base = self._bases.get(parent)
        if base is None:
            base = self._bases[parent] = self._make_base(parent)
        return base

    def _make_base(self, parent: Parent) -> _Base:
        if parent == HOST:
            return self._host_base()
        if parent == SCRATCH:
            empty = os.path.join(self.root, "l", EMPTY)
            os.makedirs(empty, mode=0o755, exist_ok=True)
            return _Base(empty, 0o755, 0, 0)
        chain = ChainID(parent)
        found = os.stat(self.layers.tree(self.layers.get(chain).chain))
        lower = ":".join(self.layers.lower_directories(chain))
        return _Base(lower, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def _host_base(self) -> _Base:
        found = os.stat(host.ROOT)
        mode = stat.S_IMODE(found.st_mode)
        layer = host.host_layer(self.root, self._hidden)
        if layer is not None:
            return _Base(f"{layer}:{host.ROOT}", mode, found.st_uid, found.st_gid)
        hidden = (self.root, *self._hidden)
        return _Base(host.ROOT, mode, found.st_uid, found.st_gid, hidden)

    def _mounts(self, directory: str, base: _Base, volatile: bool) -> list[Mount]:
        options: tuple[str, ...] = (
            f"lowerdir={base.lower}",
            f"upperdir={directory}/upper",
            f"workdir={directory}/work",
            "index=off",
            # Renamed directories and changed modes are copied: `diff` reads the layers itself.
            "redirect_dir=off",
            "metacopy=off",
        )
        if volatile:
            options += ("volatile",)
        if len(base.lower) + 2 * len(directory) + 92 > _OPTIONS_MAX:
            raise RuntimeFailure(
                "mount",
                "overlay: the paths of the image's layers do not fit into one mount",
                path=directory,
                hint="choose a shorter --data-root",
            )
        return [Mount("overlay", "overlay", "", options)]

    def _read_parent(self, key: str) -> tuple[Parent, bool]:
        try:
            value = os.getxattr(f"{self._active_directory}/{key}", _PARENT_XATTR)
        except OSError:
            return SCRATCH, False  # a crash between rename and attribute: nobody was told of it
        parent = value.removesuffix(_VOLATILE_MARK)
        return parent.decode(), parent != value

    # -- Spares and the janitor ------------------------------------------------------------------

    def _spare(self) -> str:
        try:
            return self._spares.pop()
        except IndexError:
            return self._make_spare()

    def _limited_spare(self, size_bytes: int) -> str:
        pair = self._spare()
        try:
            self.sizes.put_on(pair, size_bytes)
        except BaseException:
            self._work.put(pair)  # it is not as new any longer
            raise
        return pair

    def _pairs(self) -> Iterator[str]:
        """All pairs of directories that could have a limit."""
        for directory in (self._active_directory, self._spare_directory, self._trash):
            for name in os.listdir(directory):
                yield f"{directory}/{name}"

    def _is_half_limited(self, spare: str) -> bool:
        """Whether a former daemon died on the way of giving a spare a limit; it is deleted then."""
        if not self.sizes.has_one(spare):
            return False
        self._leftovers.append(spare)
        return True

    def _make_spare(self) -> str:
        directory = f"{self._spare_directory}/{next(self._numbers)}"
        os.mkdir(directory, 0o700)
        os.mkdir(f"{directory}/upper", 0o755)
        os.chmod(f"{directory}/upper", 0o755)
        os.mkdir(f"{directory}/work", 0o700)
        return directory

    def _adopt_spares(self) -> None:
        """Take over the spares of an earlier run, as they were emptied before they got there."""
        names = os.listdir(self._spare_directory)
        self._leftovers = [f"{self._trash}/{name}" for name in os.listdir(self._trash)]
        taken = [int(n) for n in (*names, *os.listdir(self._trash)) if n.isdigit()]
        self._numbers = itertools.count(max(taken, default=0) + 1)
        for name in names:
            path = f"{self._spare_directory}/{name}"
            if os.path.isdir(f"{path}/upper") and os.path.isdir(f"{path}/work"):
                self._spares.append(path)
            else:
                remove_tree(path)

    def _clean(self) -> None:
        """The janitor's loop: fill up the spares, delete what an earlier run left in the trash, then
        deal with what `remove` hands over."""
        self._fill_up()
        for leftover in self._leftovers:
            self._attempt(self._delete, leftover)
        while (doomed := self._work.get()) is not None:
            self._attempt(self._recycle, doomed)

    def _fill_up(self) -> None:
        try:
            while len(self._spares) < _SPARES:
                self._spares.append(self._make_spare())
            self._spare_size = os.stat(f"{self._spares[0]}/upper").st_size
        except (OSError, IndexError) as error:  # a full disk: those that are emptied will do
            log.warning("snapshots: no spare directories could be made: %s", error)

    def _attempt(self, dispose: Callable[[str], None], doomed: str) -> None:
        try:
            dispose(doomed)
        except OSError as error:
            # Perhaps something is mounted in it. It stays in the trash, which is emptied when the
            # snapshots are opened next.
            log.warning("snapshots: %s could not be deleted yet: %s", doomed, error)

    def _delete(self, doomed: str) -> None:
        self.sizes.take_off(doomed)
        remove_tree(doomed)
        self.sizes.forget(doomed)

    def _recycle(self, doomed: str) -> None:
        is_pair = os.path.isdir(f"{doomed}/work")  # and not a layer
        reusable = (
            is_pair
            and not self.sizes.has_one(doomed)
            and len(self._spares) < 2 * _SPARES
            and all(
                reset_directory(f"{doomed}/{name}", max(self._spare_size, 4096))
                for name in ("upper", "work")
            )
        )
        if not reusable:
            self._delete(doomed)
            return
        for name in os.listxattr(doomed):
            os.removexattr(doomed, name)
        spare = f"{self._spare_directory}/{os.path.basename(doomed)}"
        os.rename(doomed, spare)
        self._spares.append(spare)


def _nobody_cares(_chain: ChainID) -> None:
    return


def tree_size(directory: str) -> int:
    """The sizes of the regular files in a tree, each inode once, as Docker sums them up."""
    total = 0
    seen: set[int] = set()
    pending = [directory]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue  # a running container deleted it
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if found.st_ino not in seen:
                    seen.add(found.st_ino)
                    total += found.st_size
    return total
