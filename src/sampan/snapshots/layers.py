"""Committed layers: trees that lie under `<root>/layers/<chain>/`, shared read-only.

layers/<chain hex>/fs          the layer's own tree, whiteouts in overlayfs form
layers/<chain hex>/layer.json  parent chain, diff ID, size, the name under `l/`
layers/<chain hex>/init        mount points that images of this chain lack
l/<n>, l/<n>i                  short names of the two, for overlay's option string, which the
                               kernel limits to a page
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from sampan.errors import InvalidArgument, NotFound
from sampan.oci.digest import ChainID, DiffID, Digest, chain_id, hex_of
from sampan.oci.tar import CHUNK, Read
from sampan.snapshots.ahead import ReadAhead
from sampan.snapshots.extract import extract, is_opaque
from sampan.snapshots.trees import remove_tree

INIT_DIRECTORIES = ("dev", "etc", "proc", "sys")
INIT_FILES = (".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf")
EMPTY = "empty"
"""Among the short names, the directory that images without layers stand on."""
INIT_LINKS = (("etc/mtab", "/proc/mounts"),)


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A committed layer. `size` is the sum of its regular files in bytes."""

    chain: ChainID
    parent: ChainID | None
    diff_id: DiffID
    size: int
    link: str


class LooseLayer(NamedTuple):
    """A tree that stands on nothing yet. `size` as of `Layer`."""

    directory: str
    diff_id: DiffID
    size: int


class Layers:
    """The committed layers of one root.

    `extract` may run in several threads; the table is changed only after the tree stands.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._directory = os.path.join(root, "layers")
        self._links = os.path.join(root, "l")
        for directory in (self._directory, self._links):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self._layers: dict[ChainID, Layer] = {}
        self._children: Counter[ChainID] = Counter()  # layers that stand directly on one
        self._temporary = itertools.count()
        self._lock = threading.Lock()
        self._watching = False
        self._seen: set[ChainID] = set()  # made or looked at while watching
        self._load()

    def get(self, chain: ChainID) -> Layer:
        """A layer by its chain ID.

        Raises:
            NotFound: it was never extracted, or is gone.
        """
        self._see(chain)
        layer = self._layers.get(chain)
        if layer is None:
            raise NotFound(f"layer {chain} does not exist")
        return layer

    def has(self, chain: ChainID) -> bool:
        self._see(chain)
        return chain in self._layers

    def all(self) -> list[Layer]:
        """Every layer, in no order."""
        return list(self._layers.values())

    def find(self, chain: ChainID) -> Layer | None:
        """A layer, without counting as a look at it."""
        return self._layers.get(chain)

    def children(self, chain: ChainID) -> int:
        """How many layers stand directly on this one."""
        return self._children.get(chain, 0)

    def watch(self) -> None:
        """Begin to keep in mind which layers are made or looked at, until `settle`."""
        with self._lock:
            self._watching = True

    def settle(self) -> set[ChainID]:
        """End what `watch` began: the layers, there or not, that were made or looked at since."""
        with self._lock:
            seen, self._seen = self._seen, set()
            self._watching = False
            return seen

    def seen(self, chain: ChainID) -> bool:
        """Whether the layer was made or looked at since `watch`."""
        return chain in self._seen

    def _see(self, chain: ChainID) -> None:
        if self._watching:
            with self._lock:
                self._seen.add(chain)

    def stack(self, chain: ChainID) -> list[Layer]:
        """The layers of a chain, top first."""
        layers = []
        current: ChainID | None = chain
        while current is not None:
            layers.append(self.get(current))
            current = layers[-1].parent
        return layers

    def extract(
        self,
        read: Read,
        parent: ChainID | None,
        diff_id: DiffID | None = None,
        *,
        digest: Callable[[], str] | None = None,
    ) -> Layer:
        """Lay a plain tar out on top of `parent`; an existing layer is returned as it is.

        `digest` gives the digest of what was read, where the caller computes it anyway.

        Raises:
            BadArchive, BadLayer: as `extract.extract`.
            InvalidArgument: the tar does not hash to `diff_id`.
        """
        if diff_id is not None and self.has(chain_id(parent, diff_id)):
            return self.get(chain_id(parent, diff_id))
        return self.adopt(self.unpack(read, digest=digest), parent, diff_id)

    def unpack(self, read: Read, *, digest: Callable[[], str] | None = None) -> LooseLayer:
        """Lay a plain tar out, on top of what is not known yet: `adopt` or `discard` it.

        Raises:
            BadArchive, BadLayer: as `extract.extract`; nothing is left then.
        """
        temporary = os.path.join(self._directory, f"tmp-{next(self._temporary)}")
        tree = os.path.join(temporary, "fs")
        try:
            os.makedirs(tree)
            os.chmod(tree, 0o755)
            if digest is None:
                hashing = _Hashing(read)
                read, digest = hashing.read, hashing.digest
            with ReadAhead(read) as ahead:
                size = extract(ahead.read, tree)
                while ahead.read(CHUNK):
                    pass  # the diff ID covers what follows the archive's end mark, too
            return LooseLayer(temporary, DiffID(Digest(digest())), size)
        except BaseException:
            remove_tree(temporary)
            raise

    def adopt(
        self, loose: LooseLayer, parent: ChainID | None, diff_id: DiffID | None = None
    ) -> Layer:
        """Make an unpacked tree the layer on top of `parent`; it is used up, also by a failure.

        Raises:
            InvalidArgument: it is not `diff_id`.
        """
        try:
            if diff_id is not None and loose.diff_id != diff_id:
                raise InvalidArgument(
                    f"invalid diffID for layer: expected {diff_id!r}, got {loose.diff_id!r}"
                )
            with self._lock:
                return self._commit(loose.directory, parent, loose.diff_id, loose.size)
        except BaseException:
            self.discard(loose)
            raise

    def discard(self, loose: LooseLayer) -> None:
        """Delete an unpacked tree that nobody adopts."""
        remove_tree(loose.directory)

    def retire(self, chain: ChainID, trash: str) -> Layer | None:
        """Forget a layer that nothing stands on; its directory becomes `trash`, to be deleted.

        None, and nothing changes, where it was made or looked at since `watch`.
        """
        with self._lock:
            if chain in self._seen:
                return None
            os.rename(self._path(chain), trash)
            layer = self._layers.pop(chain)
            self._uncount(layer)
        for link in (layer.link, layer.link + "i"):
            self._unlink(link)
        return layer

    def unreachable(self, roots: Iterable[ChainID]) -> list[ChainID]:
        """The layers that no chain in `roots` needs, children before their parents."""
        kept: set[ChainID] = set()
        for root in roots:
            current: ChainID | None = root
            while current is not None and current not in kept and current in self._layers:
                kept.add(current)
                current = self._layers[current].parent
        gone = [chain for chain in self._layers if chain not in kept]
        return sorted(gone, key=lambda chain: -self._depth(chain))

    def lower_directories(self, chain: ChainID) -> tuple[str, ...]:
        """Short paths of the trees to stack, top first: the mount points, then the layers.

        Makes the mount points on first use.
        """
        layers = self.stack(chain)
        top = layers[0]
        init = os.path.join(self._path(chain), "init")
        if not os.path.isdir(init):
            trees = [os.path.join(self._path(layer.chain), "fs") for layer in layers]
            temporary = init + ".new"
            remove_tree(temporary)
            os.mkdir(temporary)
            os.chmod(temporary, stat.S_IMODE(os.stat(trees[0]).st_mode))
            make_mount_points(temporary, trees)
            os.rename(temporary, init)
        self._link(top.link + "i", f"../layers/{hex_of(chain)}/init")
        names = (top.link + "i", *(layer.link for layer in layers))
        return tuple(f"{self._links}/{name}" for name in names)

    def tree(self, chain: ChainID) -> str:
        """The directory of a layer's own tree."""
        return os.path.join(self._path(chain), "fs")

    def _path(self, chain: ChainID) -> str:
        return f"{self._directory}/{hex_of(chain)}"

    def _depth(self, chain: ChainID) -> int:
        depth = 0
        current: ChainID | None = chain
        while current is not None and current in self._layers:
            depth += 1
            current = self._layers[current].parent
        return depth

    def _load(self) -> None:
        decoder = msgspec.json.Decoder(Layer)
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            if len(name) != 64:
                remove_tree(path)  # an extraction or deletion that a crash cut short
                continue
            try:
                with open(os.path.join(path, "layer.json"), "rb") as file:
                    layer = decoder.decode(file.read())
            except (FileNotFoundError, msgspec.DecodeError):
                remove_tree(path)  # the machine went down before the disk had it
                continue
            self._layers[layer.chain] = layer
            self._count(layer)
            self._link(layer.link, f"../layers/{name}/fs")
        self._drop_stale_links()

    def _drop_stale_links(self) -> None:
        """Remove the short names of layers that a crash let go half-way."""
        links = {layer.link for layer in self._layers.values()}
        for name in os.listdir(self._links):
            if name != EMPTY and name.removesuffix("i") not in links:
                self._unlink(name)

    def _count(self, layer: Layer) -> None:
        if layer.parent is not None:
            self._children[layer.parent] += 1

    def _uncount(self, layer: Layer) -> None:
        if layer.parent is not None:
            self._children[layer.parent] -= 1
            if not self._children[layer.parent]:
                del self._children[layer.parent]

    def _commit(self, temporary: str, parent: ChainID | None, diff_id: DiffID, size: int) -> Layer:
        chain = chain_id(parent, diff_id)
        if chain in self._layers:  # another load was faster
            remove_tree(temporary)
            return self._layers[chain]
        layer = Layer(
            chain=chain, parent=parent, diff_id=diff_id, size=size, link=self._free_link()
        )
        with open(os.path.join(temporary, "layer.json"), "wb") as file:
            file.write(msgspec.json.encode(layer))
        self._link(layer.link, f"../layers/{hex_of(chain)}/fs")
        try:
            os.rename(temporary, self._path(chain))
        except BaseException:
            self._unlink(layer.link)
            raise
        if self._watching:
            self._seen.add(chain)
        self._layers[chain] = layer
        self._count(layer)
        return layer

    def _free_link(self) -> str:
        taken = {layer.link for layer in self._layers.values()}
        number = len(taken)
        while f"{number:x}" in taken:
            number += 1
        return f"{number:x}"

    def _link(self, name: str, target: str) -> None:
        path = os.path.join(self._links, name)
        try:
            if os.readlink(path) == target:
                return
            os.unlink(path)
        except FileNotFoundError:
            pass
        os.symlink(target, path)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._links, name))
        except FileNotFoundError:
            pass


def make_mount_points(directory: str, lower: list[str]) -> None:
    """Add to `directory` what every container mounts over and the trees below do not have.

    With these in a shared layer a start makes no file in the container's own layer. Docker does
    the same with a layer per container ("-init").
    """
    for name in INIT_DIRECTORIES:
        if _merged(lower, name) is None:
            os.mkdir(os.path.join(directory, name), 0o755)
    for name in INIT_FILES:
        if _can_add(directory, lower, name):
            path = os.path.join(directory, name)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    for name, target in INIT_LINKS:
        if _can_add(directory, lower, name):
            os.symlink(target, os.path.join(directory, name))
    _set_times(directory, lower)


def _set_times(directory: str, lower: list[str]) -> None:
    """Give copied directories their model's time, and what was made the epoch: so a container's
    tree is the same on every machine."""
    for base, directories, files in os.walk(directory, topdown=False):
        for name in (*directories, *files):
            path = os.path.join(base, name)
            model = _merged(lower, os.path.relpath(path, directory))
            time_ns = 0 if model is None else model.st_mtime_ns
            os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)


def _can_add(directory: str, lower: list[str], name: str) -> bool:
    """Whether a name is missing; its parent directory is then copied with owner and mode."""
    if _merged(lower, name) is not None:
        return False
    parent = os.path.dirname(name)
    if not parent or os.path.isdir(os.path.join(directory, parent)):
        return True
    below = _merged(lower, parent)
    if below is None or not stat.S_ISDIR(below.st_mode):
        return False  # a link or a file: the runtime finds its own way there
    copy_directory(below, os.path.join(directory, parent))
    return True


def copy_directory(model: os.stat_result, path: str) -> None:
    """Make an empty directory with the owner and mode of another."""
    os.mkdir(path, 0o700)
    os.chown(path, model.st_uid, model.st_gid)
    os.chmod(path, stat.S_IMODE(model.st_mode))


def _merged(trees: list[str], name: str) -> os.stat_result | None:
    """What overlayfs shows for a name in a stack of trees, top first, without following links."""
    found = None
    current = trees
    for part in name.split("/"):
        below: list[str] = []
        found = None
        for tree in current:
            path = os.path.join(tree, part)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                break
            found = found or status
            if not stat.S_ISDIR(status.st_mode):
                break
            below.append(path)
            if is_opaque(path):
                break
        if found is None or not stat.S_ISDIR(found.st_mode):
            return found if part == name.rpartition("/")[2] else None
        current = below
    return found


class _Hashing:
    """A stream that is hashed as it is read."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self._sha256.update(data)
        return data

    def digest(self) -> Digest:
        return Digest("sha256:" + self._sha256.hexdigest())
