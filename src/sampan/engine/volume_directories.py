"""A volume's directory: filled from an image, and parts of it mounted where nobody can exchange them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from sampan.engine import local_driver
from sampan.engine.container import BoundMount
from sampan.errors import NotFound
from sampan.linux import syscalls
from sampan.snapshots.copying import copy_directory
from sampan.snapshots.trees import remove_tree

STAGED = ".copying"
"""Beside the directory: content of an image on its way into it."""


def _open_below(directory: str, subpath: str) -> int:
    """A place in a volume; whoever writes to the volume cannot lead out of it."""
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        return syscalls.openat2(root, subpath, os.O_PATH, resolve=resolve)
    except OSError as error:
        raise NotFound(
            f"cannot access path {directory}/{subpath}: {os.strerror(error.errno or 0).lower()}"
        ) from error
    finally:
        os.close(root)


def bind_below(mount: BoundMount, place: str) -> None:
    """Mount the place in a volume that is meant on a path that nobody but us can exchange."""
    fd = _open_below(mount.source, mount.subpath)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.mkdir(place, 0o700)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        tree = syscalls.open_tree(fd, b"", syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
        try:
            syscalls.move_mount(tree, syscalls.AT_FDCWD, place)
        finally:
            os.close(tree)
    finally:
        os.close(fd)


def unbind(place: str) -> None:
    """Undo `bind_below`: containers that began with it keep it."""
    local_driver.unmount(place)
    try:
        os.rmdir(place) if os.path.isdir(place) else os.unlink(place)
    except FileNotFoundError:
        pass


def fill(trees: Sequence[str], place: str, path: str, in_place: bool) -> None:
    """Copy what `trees` (top first) have in the directory `place` into an empty volume at `path`.

    Unless `in_place`, all of it is there at once, or nothing. Blocks.

    Raises:
        OSError: it cannot be copied.
    """
    if os.listdir(path):
        return
    if in_place:
        copy_directory(trees, place, path)
        return
    staged = os.path.join(os.path.dirname(path), STAGED)
    remove_tree(staged)
    os.mkdir(staged, 0o755)
    try:
        if copy_directory(trees, place, staged):
            os.rename(staged, path)
        else:
            os.rmdir(staged)
    except BaseException:
        remove_tree(staged)
        raise
