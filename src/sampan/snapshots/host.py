"""What the machine's own root shows and does not show as the `host` image.

The lower layer is `/` without what is mounted on it: overlayfs does not cross mounts, so /proc,
/sys, a tmpfs on /run and other disks appear as the empty directories below them. What lies on the
root file system itself and must not be seen (the engine's state, /run, /tmp …) is covered by
opaque directories.

They are in a layer of their own between `/` and the container's. overlayfs refuses a lower layer
that lies inside another one (ELOOP, "overlapping lowerdir path"), so that layer must be on
another file system: the engine's run directory, where that is a tmpfs, or else /dev/shm. Without
either, each container's own layer gets the covers.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence

from sampan.snapshots.extract import OPAQUE
from sampan.snapshots.layers import copy_directory, make_mount_points
from sampan.snapshots.trees import remove_tree

ROOT = "/"
COVERED = {
    "/dev": 0o755,
    "/proc": 0o555,
    "/run": 0o755,
    "/sys": 0o555,
    "/tmp": 0o1777,
}
"""Directories of the host that a container has its own of, and their modes."""
_SHARED_MEMORY = "/dev/shm"


def host_layer(root: str, hidden: Sequence[str]) -> str | None:
    """Make (or complete) the layer of covers; None where there is no place for it.

    It may be in use by running containers, so it is only ever added to.
    """
    for place in _places(root, hidden):
        if _is_elsewhere(os.path.dirname(place)) and _own_directory(place):
            cover(place, [root, *hidden])
            make_mount_points(place, [place, ROOT])
            return place
    return None


def remove_host_layer(root: str, hidden: Sequence[str]) -> None:
    """Delete the layer of covers, when no container stands on it."""
    for place in _places(root, hidden):
        if _is_elsewhere(os.path.dirname(place)) and _is_mine(place):
            remove_tree(place)


def _places(root: str, hidden: Sequence[str]) -> list[str]:
    name = "sampan-" + hashlib.sha256(root.encode()).hexdigest()[:12]
    own = [os.path.join(directory, "host-layer") for directory in hidden]
    return [*own, os.path.join(_SHARED_MEMORY, name)]


def cover(directory: str, hidden: Iterable[str]) -> None:
    """Put opaque directories into `directory` for COVERED and for each path in `hidden`."""
    for path, mode in COVERED.items():
        _cover(directory, path, mode)
    for path in hidden:
        real = os.path.realpath(path)
        if _on_root(real) and not _is_covered(real):
            _cover(directory, real, 0o700)


def _cover(directory: str, path: str, mode: int) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        return
    current = directory
    seen = ""
    parts = path.strip("/").split("/")
    for part in parts[:-1]:
        seen += "/" + part
        current = os.path.join(current, part)
        if not os.path.isdir(current):
            copy_directory(os.lstat(seen), current)
    target = os.path.join(current, parts[-1])
    if os.path.isdir(target):
        return
    # Complete before it has its name: a container may be looking.
    temporary = os.path.join(current, f".{parts[-1]}.new")
    if os.path.isdir(temporary):
        os.rmdir(temporary)
    os.mkdir(temporary, 0o700)
    os.setxattr(temporary, OPAQUE, b"y")
    os.chmod(temporary, mode)
    os.rename(temporary, target)


def _is_covered(path: str) -> bool:
    return any(path == top or path.startswith(top + "/") for top in COVERED)


def _on_root(path: str) -> bool:
    try:
        return os.stat(path).st_dev == os.stat(ROOT).st_dev
    except FileNotFoundError:
        return False


def _is_elsewhere(path: str) -> bool:
    """Whether a directory exists on another file system than `/`."""
    try:
        return os.stat(path).st_dev != os.stat(ROOT).st_dev
    except FileNotFoundError:
        return False


def _own_directory(path: str) -> bool:
    """Make a private directory, or take an earlier one; anybody may write to /dev/shm, so one that
    somebody else made is not trusted."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return _is_mine(path)
    return True


def _is_mine(path: str) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return mine and not found.st_mode & 0o022
