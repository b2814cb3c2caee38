"""Mounts: the value that names one, the option words of fstab(5), and how one is performed.

A `Mount` is made by whoever knows what to mount (a snapshotter, the engine) and performed by the
runtime inside the container's mount namespace. Targets inside a root file system are given as
O_PATH file descriptors, found by `sampan.linux.rooted`; nothing here joins a hostile path.
"""

from __future__ import annotations

import os

from sampan.linux import syscalls as sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any


class Mount:
    """One mount as an immutable value: what mount(8) would be told.

    `target` is absolute on the machine, or absolute inside the rootfs for a bundle's mounts;
    `options` are words of fstab(5).
    """

    __slots__ = ("options", "source", "target", "type")

    type: str
    source: str
    target: str
    options: tuple[str, ...]

    def __init__(self, type: str, source: str, target: str, options: Iterable[str] = ()) -> None:
        for name, value in (
            ("type", type),
            ("source", source),
            ("target", target),
            ("options", tuple(options)),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Mount is immutable: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mount) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Mount({self.type!r}, {self.source!r}, {self.target!r}, {self.options!r})"

    def _values(self) -> tuple[str, str, str, tuple[str, ...]]:
        return self.type, self.source, self.target, self.options

    def __reduce__(self) -> tuple[Any, ...]:
        return Mount, self._values()

    def to_dict(self) -> dict[str, Any]:
        """The mount as JSON-ready data with the keys type, source, target, options."""
        return {
            "type": self.type,
            "source": self.source,
            "target": self.target,
            "options": list(self.options),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Mount:
        """The mount that `to_dict` wrote."""
        return cls(data["type"], data["source"], data["target"], data.get("options") or ())


# word → (flag, is it cleared?); fstab(5), mount(8)
_FLAGS: dict[str, tuple[int, bool]] = {
    "async": (sys.MS_SYNCHRONOUS, True),
    "atime": (sys.MS_NOATIME, True),
    "bind": (sys.MS_BIND, False),
    "defaults": (0, False),
    "dev": (sys.MS_NODEV, True),
    "diratime": (sys.MS_NODIRATIME, True),
    "dirsync": (sys.MS_DIRSYNC, False),
    "exec": (sys.MS_NOEXEC, True),
    "lazytime": (sys.MS_LAZYTIME, False),
    "loud": (sys.MS_SILENT, True),
    "mand": (sys.MS_MANDLOCK, False),
    "noatime": (sys.MS_NOATIME, False),
    "nodev": (sys.MS_NODEV, False),
    "nodiratime": (sys.MS_NODIRATIME, False),
    "noexec": (sys.MS_NOEXEC, False),
    "nolazytime": (sys.MS_LAZYTIME, True),
    "nomand": (sys.MS_MANDLOCK, True),
    "norelatime": (sys.MS_RELATIME, True),
    "nostrictatime": (sys.MS_STRICTATIME, True),
    "nosuid": (sys.MS_NOSUID, False),
    "nosymfollow": (sys.MS_NOSYMFOLLOW, False),
    "rbind": (sys.MS_BIND | sys.MS_REC, False),
    "relatime": (sys.MS_RELATIME, False),
    "remount": (sys.MS_REMOUNT, False),
    "ro": (sys.MS_RDONLY, False),
    "rw": (sys.MS_RDONLY, True),
    "silent": (sys.MS_SILENT, False),
    "strictatime": (sys.MS_STRICTATIME, False),
    "suid": (sys.MS_NOSUID, True),
    "symfollow": (sys.MS_NOSYMFOLLOW, True),
    "sync": (sys.MS_SYNCHRONOUS, False),
}

PROPAGATION: dict[str, int] = {
    "private": sys.MS_PRIVATE,
    "rprivate": sys.MS_PRIVATE | sys.MS_REC,
    "rshared": sys.MS_SHARED | sys.MS_REC,
    "rslave": sys.MS_SLAVE | sys.MS_REC,
    "runbindable": sys.MS_UNBINDABLE | sys.MS_REC,
    "shared": sys.MS_SHARED,
    "slave": sys.MS_SLAVE,
    "unbindable": sys.MS_UNBINDABLE,
}
"""Word of mount(8) → flags of mount(2)."""

# recursive attributes of the OCI runtime-spec, "Linux mount options": word → (set, clear)
_RECURSIVE: dict[str, tuple[int, int]] = {
    "ratime": (0, sys.MOUNT_ATTR_NOATIME),
    "rdev": (0, sys.MOUNT_ATTR_NODEV),
    "rdiratime": (0, sys.MOUNT_ATTR_NODIRATIME),
    "rexec": (0, sys.MOUNT_ATTR_NOEXEC),
    "rnoatime": (sys.MOUNT_ATTR_NOATIME, sys.MOUNT_ATTR__ATIME),
    "rnodev": (sys.MOUNT_ATTR_NODEV, 0),
    "rnodiratime": (sys.MOUNT_ATTR_NODIRATIME, 0),
    "rnoexec": (sys.MOUNT_ATTR_NOEXEC, 0),
    "rnorelatime": (0, sys.MOUNT_ATTR__ATIME),
    "rnostrictatime": (0, sys.MOUNT_ATTR__ATIME),
    "rnosuid": (sys.MOUNT_ATTR_NOSUID, 0),
    "rnosymfollow": (sys.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rrelatime": (sys.MOUNT_ATTR_RELATIME, sys.MOUNT_ATTR__ATIME),
    "rro": (sys.MOUNT_ATTR_RDONLY, 0),
    "rrw": (0, sys.MOUNT_ATTR_RDONLY),
    "rstrictatime": (sys.MOUNT_ATTR_STRICTATIME, sys.MOUNT_ATTR__ATIME),
    "rsuid": (0, sys.MOUNT_ATTR_NOSUID),
    "rsymfollow": (0, sys.MOUNT_ATTR_NOSYMFOLLOW),
}

# per-mount flags of mount(2) → attributes of mount_setattr(2)
_ATTRIBUTES: tuple[tuple[int, int], ...] = (
    (sys.MS_RDONLY, sys.MOUNT_ATTR_RDONLY),
    (sys.MS_NOSUID, sys.MOUNT_ATTR_NOSUID),
    (sys.MS_NODEV, sys.MOUNT_ATTR_NODEV),
    (sys.MS_NOEXEC, sys.MOUNT_ATTR_NOEXEC),
    (sys.MS_NODIRATIME, sys.MOUNT_ATTR_NODIRATIME),
    (sys.MS_NOSYMFOLLOW, sys.MOUNT_ATTR_NOSYMFOLLOW),
)
_ATIME: tuple[tuple[int, int], ...] = (
    (sys.MS_NOATIME, sys.MOUNT_ATTR_NOATIME),
    (sys.MS_STRICTATIME, sys.MOUNT_ATTR_STRICTATIME),
    (sys.MS_RELATIME, sys.MOUNT_ATTR_RELATIME),
)

OPTION_WORDS: tuple[str, ...] = tuple(
    sorted({*_FLAGS, *PROPAGATION, *_RECURSIVE, "idmap", "ridmap", "tmpcopyup"})
)
"""Every word that is not handed to the file system; for `features`."""


class Options:
    """Mount options sorted out by where they go.

    `flags`, `cleared`: MS_* asked for and asked against; `data`: what the file system itself reads;
    `propagation`: MS_* values to apply one after the other; `recursive_set`/`recursive_clear`:
    MOUNT_ATTR_* for the whole tree; `idmap`: None, "idmap" or "ridmap"; `copy_up`: tmpcopyup.
    """

    __slots__ = (
        "cleared",
        "copy_up",
        "data",
        "flags",
        "idmap",
        "propagation",
        "recursive_clear",
        "recursive_set",
    )

    def __init__(self) -> None:
        self.flags = 0
        self.cleared = 0
        self.data: list[str] = []
        self.propagation: list[int] = []
        self.recursive_set = 0
        self.recursive_clear = 0
        self.idmap: str | None = None
        self.copy_up = False

    @property
    def bind(self) -> bool:
        return bool(self.flags & sys.MS_BIND)

    def attributes(self) -> tuple[int, int]:
        """(set, clear) for mount_setattr(2) that give one mount the flags asked for."""
        wanted = cleared = 0
        for flag, attribute in _ATTRIBUTES:
            wanted |= attribute if self.flags & flag else 0
            cleared |= attribute if self.cleared & flag else 0
        for flag, attribute in _ATIME:
            if self.flags & flag:
                return wanted | attribute, cleared | sys.MOUNT_ATTR__ATIME
        return wanted, cleared


def parse_options(words: Sequence[str]) -> Options:
    """Sort option words; a word nobody knows is the file system's own. Later words win."""
    options = Options()
    for word in words:
        if word in _FLAGS:
            flag, clear = _FLAGS[word]
            if clear:
                options.flags &= ~flag
                options.cleared |= flag
            else:
                options.flags |= flag
                options.cleared &= ~flag
        elif word in PROPAGATION:
            options.propagation.append(PROPAGATION[word])
        elif word in _RECURSIVE:
            wanted, cleared = _RECURSIVE[word]
            options.recursive_set = (options.recursive_set & ~cleared) | wanted
            options.recursive_clear = (options.recursive_clear & ~wanted) | cleared
        elif word in ("idmap", "ridmap"):
            options.idmap = word
        elif word == "tmpcopyup":
            options.copy_up = True
        else:
            options.data.append(word)
    return options


def perform(mount: Mount) -> None:
    """Mount as a snapshotter asked: `mount.target` is a trusted path of this mount namespace.

    Raises:
        OSError: from mount(2), naming the target.
    """
    options = parse_options(mount.options)
    if options.bind:
        tree = clone_tree(mount.source, recursive=bool(options.flags & sys.MS_REC))
        try:
            attach_tree(tree, options, sys.AT_FDCWD, mount.target)
        finally:
            os.close(tree)
        return
    data = ",".join(options.data)
    if len(os.fsencode(data)) > _MAXIMUM_DATA and mount.type == "overlay":
        _mount_many_layers(mount, options)
    else:
        sys.mount(mount.source, mount.target, mount.type, options.flags, data or None)
    for propagation in options.propagation:
        sys.mount(None, mount.target, None, propagation)


# mount(2) reads one page of data and cuts off what is longer
_MAXIMUM_DATA = 4095


def _mount_many_layers(mount: Mount, options: Options) -> None:
    """Mount an overlay whose layers' paths do not fit: each is named by a file descriptor instead.

    The kernel looks the names up from the working directory, which is /proc/self/fd meanwhile.
    """
    layers: list[int] = []
    former = os.open(".", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        words = []
        for word in options.data:
            name, _, value = word.partition("=")
            if name == "lowerdir":
                opened = [_open_layer(path, layers) for path in _split_layers(value)]
                word = f"lowerdir={':'.join(map(str, opened))}"
            words.append(word)
        os.chdir("/proc/self/fd")
        sys.mount(mount.source, mount.target, mount.type, options.flags, ",".join(words))
    finally:
        os.fchdir(former)
        for fd in (*layers, former):
            os.close(fd)


def _open_layer(path: str, opened: list[int]) -> int:
    opened.append(os.open(path, sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return opened[-1]


def _split_layers(value: str) -> list[str]:
    """The paths of `lowerdir=`: divided by colons, those in a path escaped by a backslash."""
    hidden = value.replace("\\\\", "\0").replace("\\:", "\1")
    return [
        path.replace("\1", ":").replace("\0", "\\").replace("\\,", ",")
        for path in hidden.split(":")
    ]


def clone_tree(source: str | bytes, *, recursive: bool, directory: int = sys.AT_FDCWD) -> int:
    """A detached copy of the mount at `source`: what a bind mount of it would attach."""
    flags = sys.OPEN_TREE_CLONE | (sys.AT_RECURSIVE if recursive else 0)
    return sys.open_tree(directory, source, flags)


def attach_tree(tree: int, options: Options, to_fd: int, to_path: str | bytes = b"") -> None:
    """Give a detached tree its attributes and propagation and attach it at the target."""
    configure_tree(tree, options)
    sys.move_mount(tree, to_fd, to_path)
    for propagation in options.propagation:
        recursive = bool(propagation & sys.MS_REC)
        sys.mount_setattr(tree, propagation=propagation & ~sys.MS_REC, recursive=recursive)


def configure_tree(tree: int, options: Options) -> None:
    """Apply the flags of `options` to the top mount and the recursive ones to all of them."""
    wanted, cleared = options.attributes()
    if wanted or cleared:
        sys.mount_setattr(tree, set_attributes=wanted, clear_attributes=cleared)
    if options.recursive_set or options.recursive_clear:
        sys.mount_setattr(
            tree,
            set_attributes=options.recursive_set,
            clear_attributes=options.recursive_clear,
            recursive=True,
        )
