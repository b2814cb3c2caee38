"""Mounts of type image: what an image has, or a place in it, read-only in a container.

At a start the image's layers are mounted where only we can get, and from there into the container, so
that the machine's own mount table does not keep them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

from sampan.engine.container import BoundMount, Container
from sampan.engine.volume_directories import bind_below, unbind
from sampan.errors import NotFound
from sampan.images.service import Images
from sampan.linux.mounts import Mount, perform
from sampan.snapshots.overlay import Snapshotter

TYPE = "image"


def resolve(mounts: Iterable[BoundMount], images: Images) -> None:
    """Note which image each mount means, now and at all starts.

    Raises:
        NotFound: there is no such image, dockerd's text.
    """
    for mount in mounts:
        if mount.type == TYPE:
            image = images.resolve(mount.source)
            mount.image, mount.layers = image.id, image.parent


def users(containers: Iterable[Container], image_id: str) -> list[tuple[str, bool]]:
    """Who needs an image: (container, does it run). One that mounts it counts as running: its next start
    needs the layers."""
    found = []
    for container in containers:
        mounted = any(mount.image == image_id for mount in container.record.mounts)
        if mounted or container.image[0] == image_id:
            found.append((container.id, mounted or container.state.counts_as_running))
    return found


def place(container: Container, snapshots: Snapshotter, directory: str) -> dict[str, str]:
    """Mount a container's images for the moment of its start.

    Returns what to mount at a destination: paths below `directory`, for the caller to `unbind`.

    Raises:
        NotFound: an image has no such place.
        OSError: the kernel does not mount it.
    """
    bound: dict[str, str] = {}
    try:
        for number, mount in enumerate(container.record.mounts):
            if mount.type == TYPE:
                os.makedirs(directory, mode=0o700, exist_ok=True)
                path = f"{directory}/{container.id}-image{number}"
                _mount(mount, snapshots.trees(mount.layers), path)
                bound[mount.destination] = path
    except BaseException:
        for path in bound.values():
            unbind(path)
        raise
    return bound


def _mount(mount: BoundMount, trees: Sequence[str], path: str) -> None:
    if not mount.subpath:
        os.mkdir(path, 0o700)
        _mount_whole(trees, path)
        return
    whole = f"{path}-whole"
    os.mkdir(whole, 0o700)
    try:
        _mount_whole(trees, whole)
        bind_below(BoundMount(type=TYPE, source=whole, destination="", subpath=mount.subpath), path)
    except NotFound as error:
        raise NotFound(
            f"cannot access path {mount.subpath} in image {mount.source}: "
            f"{error.message.rpartition(': ')[2]}"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            unbind(whole)


def _mount_whole(trees: Sequence[str], path: str) -> None:
    try:
        if len(trees) == 1:  # overlayfs wants two
            perform(Mount("bind", trees[0], path, ("bind", "ro")))
        else:
            perform(Mount("overlay", "overlay", path, (f"lowerdir={':'.join(trees)}", "ro")))
    except BaseException:
        os.rmdir(path)
        raise
