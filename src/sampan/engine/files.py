"""Files in containers, into them and out of them: what `docker cp` does.

Paths mean what they mean in the container; see `snapshots.places`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from sampan.content.compression import decompressed
from sampan.engine.container import BoundMount, Container
from sampan.engine.lifecycle import Lifecycle
from sampan.engine.open_roots import OpenRoot, OpenRoots
from sampan.engine.services import Services
from sampan.engine.sizes import WrittenSizes
from sampan.errors import Forbidden, InvalidArgument, NotFound
from sampan.images.pipe import consume, produced
from sampan.linux import rooted
from sampan.runtime import users
from sampan.snapshots import places, tree_read, tree_write
from sampan.snapshots.places import Place
from sampan.snapshots.tree_write import Rules

_MISSING = frozenset((errno.ENOENT, errno.ESTALE))
_SYSTEM_MOUNTS = ("/dev", "/proc", "/sys")
_DEVICES = frozenset((b"dev",))
"""No part of a copy of a whole container, whose first process they were made for."""


class PathStat(NamedTuple):
    """What is at a path; `mode` is the kernel's, `link_target` where a link leads in the container."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str


class Files:
    """Copies files. A container is always given with the name that the client used."""

    def __init__(self, services: Services, lifecycle: Lifecycle, written: WrittenSizes) -> None:
        self._roots = OpenRoots(services)
        self._spool = services.options.data_root
        self._lifecycle = lifecycle
        self._written = written

    async def stat(self, container: Container, called: str, path: str) -> PathStat:
        """What is at `path`; links in its last component are not followed.

        Raises:
            NotFound: nothing is.
            InvalidArgument: it is no path.
        """
        wanted = _wanted(path)
        async with self._roots.open(container) as root:
            place, found = await asyncio.to_thread(_looked_up, root.fd, wanted, called)
            place.close()
            return found

    @asynccontextmanager
    async def reading(
        self, container: Container, called: str, path: str
    ) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """What is at `path`, and the tar of it, to be read within the context.

        Raises: see `stat`. While the tar is read:
            Conflict: the container ended, and with it what was mounted there.
            OSError: it cannot be read.
        """
        wanted = _wanted(path)
        async with self._roots.open(container) as root:
            place, found = await asyncio.to_thread(_looked_up, root.fd, wanted, called)
            with place:
                real = await asyncio.to_thread(_real_path, root.fd, wanted)
                self._lifecycle.emit(container, "archive-path")
                shown = os.fsencode(places.base(wanted))
                empty = _DEVICES if real == "/" and root.runs else frozenset[bytes]()
                check = root.check if _has_mounts(container, real) else _never
                yield found, produced(_checked(tree_read.archive(place, shown, empty), check))

    async def extract(
        self,
        container: Container,
        called: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        same_kind: bool = False,
        as_user: bool = False,
    ) -> None:
        """Put a tar, compressed or not, into the directory `path`; links in it are followed.

        With `same_kind` no directory is replaced by something else, or the other way round; `as_user`
        gives everything to the container's user.

        Raises:
            NotFound: there is no such directory.
            InvalidArgument: it is none, the archive is bad, or an entry cannot be laid out.
            Forbidden: it is in a volume or a root that is mounted read-only.
            Conflict: the container ended meanwhile.
            Unavailable: the disk is full.
        """
        wanted = _wanted(path)
        async with self._roots.open(container) as root:
            target = await asyncio.to_thread(_target, container, root, wanted, called)
            owner = await asyncio.to_thread(_owner, container, root.fd) if as_user else None
            rules = Rules(self._spool, owner=owner, same_kind=same_kind)

            def work(read: Callable[[int], bytes]) -> None:
                plain, _ = decompressed(read)
                tree_write.put(plain, root.fd, target, rules, root.check)

            try:
                await consume(chunks, work)
            finally:
                self._written.forget(container)
            self._lifecycle.emit(container, "extract-to-dir")


def _wanted(path: str) -> str:
    if "\0" in path:
        raise InvalidArgument("bad parameter: path with a NUL in it")
    return places.absolute(path)


def _never() -> None:
    return


def _checked(pieces: Iterator[bytes], check: Callable[[], None]) -> Iterator[bytes]:
    """The pieces; the last one, without which a tar has no end, only if all is well."""
    held = b""
    for piece in pieces:
        if held:
            yield held
        held = piece
    check()
    yield held


# -- In threads --------------------------------------------------------------------------------------


def _looked_up(root: int, wanted: str, called: str) -> tuple[Place, PathStat]:
    try:
        place = places.find(root, wanted)
    except OSError as error:
        raise _not_found(error, wanted, called) from error
    try:
        status = place.status
        target = places.real_path(root, wanted) if stat.S_ISLNK(status.st_mode) else ""
        return place, PathStat(
            places.base(wanted), status.st_size, status.st_mode, status.st_mtime_ns, target
        )
    except OSError as error:
        place.close()
        raise _not_found(error, wanted, called) from error


def _not_found(error: OSError, wanted: str, called: str) -> Exception:
    if error.errno in _MISSING:
        return NotFound(f"Could not find the file {wanted} in container {called}")
    return InvalidArgument(f"lstat {wanted}: {os.strerror(error.errno or 0).lower()}")


def _target(container: Container, root: OpenRoot, wanted: str, called: str) -> str:
    """The directory to write to, without a link in it."""
    try:
        target = places.real_path(root.fd, wanted)
        with places.find(root.fd, target) as place:
            mode = place.status.st_mode
    except OSError as error:
        raise _not_found(error, wanted, called) from error
    if not stat.S_ISDIR(mode):
        raise InvalidArgument("extraction point is not a directory")
    mount = _mount_of(container, target)
    if mount is not None and not mount.rw:
        raise Forbidden("mounted volume is marked read-only")
    own = mount is None and container.host_config.readonly_rootfs
    if own and not (root.runs and _writable(root.fd, target)):
        raise Forbidden("container rootfs is marked read-only")
    return target


def _mount_of(container: Container, path: str) -> BoundMount | None:
    """The user's mount that a path lies in, but no tmpfs: a container that runs has its own."""
    found = [
        mount
        for mount in container.record.mounts
        if mount.type != "tmpfs" and _within(path, mount.destination)
    ]
    return max(found, key=lambda mount: len(mount.destination), default=None)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _writable(root: int, path: str) -> bool:
    """Whether something writable is mounted there, a tmpfs for example."""
    fd = rooted.open_inside(root, path)
    try:
        return not os.fstatvfs(fd).f_flag & os.ST_RDONLY
    finally:
        os.close(fd)


def _real_path(root: int, wanted: str) -> str:
    try:
        return places.real_path(root, wanted)
    except OSError:
        return "/"


def _has_mounts(container: Container, path: str) -> bool:
    """Whether what is asked for lies in a mount or has one in it."""
    destinations = [mount.destination for mount in container.record.mounts]
    return any(
        _within(path, destination) or _within(destination, path)
        for destination in (*destinations, *_SYSTEM_MOUNTS)
    )


def _owner(container: Container, root: int) -> tuple[int, int] | None:
    """The container's user and group by its own files; None for one that says nothing of them.

    Raises:
        RuntimeFailure: there is no such user.
    """
    if not container.config.user:
        return None
    files = {name: _regular(root, f"/etc/{name}") for name in ("passwd", "group")}
    try:
        found = users.resolve(
            container.config.user,
            [],
            passwd_path=_path_of(files["passwd"]),
            group_path=_path_of(files["group"]),
        )
        return found.uid, found.gid
    finally:
        for fd in files.values():
            if fd >= 0:
                os.close(fd)


def _regular(root: int, path: str) -> int:
    """An O_PATH descriptor of a regular file, -1 if it is none: a device is not to be opened."""
    try:
        fd = rooted.open_inside(root, path)
    except OSError:
        return -1
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return -1


def _path_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}" if fd >= 0 else os.devnull
