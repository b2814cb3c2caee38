"""Binds, `--mount` and `--tmpfs`: parsed at create, turned into OCI mounts at start.

Source: Docker's `[SOURCE:]TARGET[:OPTIONS]`; OCI runtime-spec config.md, "Mounts".
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from sampan.engine.container import BoundMount
from sampan.engine.model import BindOptions, ContainerConfig, HostConfig, MountSpec
from sampan.errors import InvalidArgument, Unsupported

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
PROPAGATION = frozenset(["private", "rprivate", "shared", "rshared", "slave", "rslave"])
BIND_MODES = frozenset({"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"})
TMPFS_FLAGS = frozenset(
    [
        "rw",
        "ro",
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "atime",
        "noatime",
        "relatime",
        "norelatime",
        "diratime",
        "nodiratime",
        "strictatime",
        "nostrictatime",
        "mand",
        "nomand",
        "remount",
        "bind",
        "rbind",
        "rprivate",
        "rslave",
        "rshared",
        "private",
        "slave",
        "shared",
        "unbindable",
        "runbindable",
    ]
)
TMPFS_VALUES = frozenset(["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"])


def parse_mounts(
    config: ContainerConfig, host: HostConfig, others: Sequence[BoundMount] = ()
) -> list[BoundMount]:
    """The user's mounts in the order they are to be made; `others` are those of other containers, which
    give way to its own.

    Raises:
        InvalidArgument: a malformed one, two for one target, a source that has to exist and does not.
        Unsupported: a kind that is not built.
    """
    mounts = [parse_bind(text) for text in host.binds or ()]
    mounts += [_parse_mount(spec) for spec in host.mounts or ()]
    mounts += [
        BoundMount(type="tmpfs", source="", destination=target(path), mode=tmpfs_options(options))
        for path, options in (host.tmpfs or {}).items()
    ]
    seen = set()
    for mount in mounts:
        if mount.destination in seen:
            raise InvalidArgument(f"Duplicate mount point: {mount.destination}")
        seen.add(mount.destination)
    for other in [*others, *(_anonymous(path) for path in config.volumes or ())]:
        if other.destination not in seen:
            seen.add(other.destination)
            mounts.append(other)
    # A mount below another one comes after it, or it would be covered.
    return sorted(mounts, key=lambda mount: mount.destination.count("/"))


def parse_bind(text: str) -> BoundMount:
    """One entry of `Binds`."""
    parts = text.split(":")
    if len(parts) == 1:
        return _anonymous(text)
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if not parts[0].startswith("/"):
        check_volume_name(parts[0])
    mode = parts[2] if len(parts) == 3 else ""
    propagation, read_write = "rprivate", True
    for option in mode.split(",") if mode else ():
        if option in PROPAGATION:
            propagation = option
        elif option not in BIND_MODES:
            raise InvalidArgument(f"invalid volume specification: '{text}': invalid mode: {mode}")
        elif option == "ro":
            read_write = False
    if not parts[0].startswith("/"):
        return BoundMount(
            type="volume",
            source="",
            destination=target(parts[1]),
            mode=mode or "z",
            rw=read_write,
            name=parts[0],
            no_copy="nocopy" in mode.split(","),
        )
    return BoundMount(
        type="bind",
        source=posixpath.normpath(parts[0]),
        destination=target(parts[1]),
        mode=mode,
        rw=read_write,
        propagation=propagation,
    )


def _anonymous(path: str) -> BoundMount:
    return BoundMount(type="volume", source="", destination=target(path))


def volumes_from(text: str, mounts: Sequence[BoundMount]) -> list[BoundMount]:
    """The mounts of another container, as `--volumes-from NAME[:MODE]` gives them.

    Raises:
        InvalidArgument: an unknown mode.
    """
    mode = text.partition(":")[2]
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise InvalidArgument(f"invalid mode for volumes-from: {mode}")
    taken = [msgspec.structs.replace(mount) for mount in mounts if mount.type != "tmpfs"]
    for mount in taken:
        mount.rw = mount.rw and mode != "ro"
        mount.no_copy = True
    return taken


def _parse_mount(spec: MountSpec) -> BoundMount:
    match spec.type:
        case "bind":
            options = spec.bind_options
            if not spec.source.startswith("/"):
                raise InvalidArgument(
                    f"invalid mount config for type \"bind\": invalid mount path: '{spec.source}' "
                    "mount path must be absolute"
                )
            if not os.path.lexists(spec.source) and not (options and options.create_mountpoint):
                raise InvalidArgument(
                    'invalid mount config for type "bind": bind source path does not exist: '
                    f"{spec.source}"
                )
            propagation = (options.propagation if options else "") or "rprivate"
            if propagation not in PROPAGATION:
                raise InvalidArgument(
                    f'invalid mount config for type "bind": invalid propagation: {propagation}'
                )
            if options and options.read_only_force_recursive:
                _check_forced(spec, options, propagation)
            mode = "bind-nonrecursive" if options and options.non_recursive else ""
            return BoundMount(
                type="bind",
                source=posixpath.normpath(spec.source),
                destination=target(spec.target),
                mode=mode,
                rw=not spec.read_only,
                propagation=propagation,
                writable_below=bool(options and options.read_only_non_recursive),
            )
        case "tmpfs":
            return BoundMount(
                type="tmpfs", source="", destination=target(spec.target), mode=_tmpfs_mode(spec)
            )
        case "volume":
            volume = spec.volume_options
            return BoundMount(
                type="volume",
                source="",
                destination=target(spec.target),
                mode="z",
                rw=not spec.read_only,
                name=check_volume_name(spec.source) if spec.source else "",
                subpath=volume.subpath if volume else "",
                no_copy=bool(volume and volume.no_copy),
            )
        case "image":
            if not spec.source:
                raise InvalidArgument(
                    'invalid mount config for type "image": field Source must not be empty'
                )
            return BoundMount(
                type="image",
                source=spec.source,
                destination=target(spec.target),
                rw=False,
                subpath=spec.image_options.subpath if spec.image_options else "",
            )
        case "npipe" | "cluster":
            raise Unsupported(f"mounts of type {spec.type} are not built yet: {spec.target}")
        case _:
            raise InvalidArgument(f'mount type unknown: "{spec.type}"')


def _check_forced(spec: MountSpec, options: BindOptions, propagation: str) -> None:
    """`bind-recursive=readonly`: the kernels that Sampan runs on all can; the rest has to fit."""
    head = 'invalid mount config for type "bind": '
    if not spec.read_only:
        raise InvalidArgument(f"{head}ReadOnlyForceRecursive needs ReadOnly")
    if options.read_only_non_recursive or options.non_recursive:
        raise InvalidArgument(f"{head}ReadOnlyForceRecursive contradicts another option")
    if propagation != "rprivate":
        raise InvalidArgument(f"{head}ReadOnlyForceRecursive needs the propagation rprivate")


def check_volume_name(name: str) -> str:
    """The name, of what volumes' names are made of.

    Raises:
        InvalidArgument: it has other characters, or only one; with docker's words.
    """
    if not VOLUME_NAME.fullmatch(name):
        raise invalid_volume_name(name)
    return name


def invalid_volume_name(name: str) -> InvalidArgument:
    """The refusal of a name."""
    return InvalidArgument(
        f'create {name}: "{name}" includes invalid characters for a local volume name, only '
        '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
        "use absolute path"
    )


def _tmpfs_mode(spec: MountSpec) -> str:
    parts = ["ro"] if spec.read_only else []
    if options := spec.tmpfs_options:
        if options.size_bytes < 0 or not 0 <= options.mode <= 0o7777:
            raise InvalidArgument(f'invalid mount config for type "tmpfs": {spec.target}')
        parts += [f"size={options.size_bytes}"] if options.size_bytes else []
        parts += [f"mode={options.mode:o}"] if options.mode else []
        parts += ["=".join(entry) for entry in options.options]
    return tmpfs_options(",".join(parts))


def tmpfs_options(text: str) -> str:
    """The options of a tmpfs, checked; see tmpfs(5)."""
    for option in text.split(",") if text else ():
        name, equals, value = option.partition("=")
        if not (name in TMPFS_VALUES and value if equals else name in TMPFS_FLAGS):
            raise InvalidArgument(f'invalid tmpfs option ["{option}"]')
    return text


def target(path: str) -> str:
    """A clean absolute path inside the container."""
    if not path.startswith("/"):
        raise InvalidArgument(
            f"invalid mount config: invalid mount path: '{path}' mount path must be absolute"
        )
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    return clean


def make_sources(mounts: list[BoundMount], host: HostConfig) -> None:
    """Make the directories that `--volume` is allowed to make on the host."""
    made = {parse_bind(text).source for text in host.binds or ()}
    made |= {
        posixpath.normpath(spec.source)
        for spec in host.mounts or ()
        if spec.bind_options and spec.bind_options.create_mountpoint
    }
    for mount in mounts:
        if mount.type == "bind" and mount.source in made and not os.path.lexists(mount.source):
            os.makedirs(mount.source, exist_ok=True)


def oci_mount(mount: BoundMount, source: str = "") -> dict[str, Any]:
    """The OCI mount of a user's mount; of another `source` than its own, if one is given."""
    if mount.type == "tmpfs":
        options = ["noexec", "nosuid", "nodev", *(mount.mode.split(",") if mount.mode else [])]
        return {
            "destination": mount.destination,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": options,
        }
    recursive = mount.mode != "bind-nonrecursive"
    options = ["rbind" if recursive else "bind", "rw" if mount.rw else "ro"]
    if recursive and not mount.rw and not mount.writable_below and mount.type == "bind":
        options.append("rro")
    return {
        "destination": mount.destination,
        "type": "bind",
        "source": source or mount.source,
        "options": [*options, mount.propagation or "rprivate"],
    }
