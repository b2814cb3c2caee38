"""The roots of containers, open for reading and writing files in them.

Of a running container it is the root of its first process: what is looked up from there goes through
the container's own mounts, also those it made itself. One that does not run is put together for the
time (`assembly`), and cannot be started meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sampan.engine.assembly import Bind, assemble
from sampan.engine.container import BoundMount, Container, Status
from sampan.engine.mounts import PROPAGATION, oci_mount
from sampan.engine.services import Services
from sampan.engine.volume_directories import unbind
from sampan.errors import Conflict, NotFound, Unavailable
from sampan.linux import syscalls
from sampan.linux.mounts import Mount

_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NETWORK_FILES = ("resolv.conf", "hostname", "hosts")
_ALIVE = 0
"""The signal that only asks whether there is a process."""


class OpenRoot:
    """A container's root: `fd` is an O_PATH descriptor; `pidfd` is that of its process, or -1."""

    def __init__(self, container: Container, fd: int, pidfd: int = -1) -> None:
        self.fd = fd
        self._container = container
        self._pidfd = pidfd
        self._poll = select.poll()
        if pidfd >= 0:
            self._poll.register(pidfd, select.POLLIN)

    @property
    def runs(self) -> bool:
        """Whether it is the root of a process, with all that is mounted in it."""
        return self._pidfd >= 0

    def check(self) -> None:
        """For any thread.

        Raises:
            Conflict: the process has ended, so that its mounts are gone.
        """
        if self._pidfd >= 0 and self._poll.poll(0):
            raise Conflict(f"container {self._container.id} ended meanwhile")


class OpenRoots:
    """Opens them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @asynccontextmanager
    async def open(self, container: Container) -> AsyncIterator[OpenRoot]:
        """The container's root, for as long as the context lasts.

        Raises:
            Conflict: it is being removed.
            NotFound: it was removed.
            RuntimeFailure: something that it needs cannot be mounted.
        """
        while True:
            if container.state.running and container.shim is not None:
                async with self._of_process(container) as root:
                    yield root
                return
            async with container.lock:
                if container.state.running:
                    continue
                async with self._assembled(container) as root:
                    yield root
                return

    @asynccontextmanager
    async def _of_process(self, container: Container) -> AsyncIterator[OpenRoot]:
        assert container.shim is not None
        pidfd = os.dup(container.shim.pidfd)
        fd = -1
        try:
            try:
                fd = os.open(f"/proc/{container.state.pid}/root", _OPEN)
                syscalls.pidfd_send_signal(pidfd, _ALIVE)  # so it was this process's root
            except OSError as error:
                raise Unavailable(f"container {container.id} has just ended") from error
            yield OpenRoot(container, fd, pidfd)
        finally:
            os.close(pidfd)
            if fd >= 0:
                os.close(fd)

    @asynccontextmanager
    async def _assembled(self, container: Container) -> AsyncIterator[OpenRoot]:
        if not self._services.registry.holds(container):
            raise NotFound(f"No such container: {container.id}")
        if container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"container {container.id} is being removed")
        volumes = self._services.volumes
        try:
            bound = await volumes.mount(container)
            try:
                rootfs = self._services.snapshots.mounts(container.id)
                fd = await _in_thread(container, rootfs, bound)
            finally:
                for place in bound.values():
                    unbind(place)
            try:
                yield OpenRoot(container, fd)
            finally:
                # The last one out flushes what was written: not on the event loop.
                await asyncio.shield(asyncio.to_thread(os.close, fd))
        finally:
            volumes.ended(container, ran=False)


async def _in_thread(container: Container, rootfs: Sequence[Mount], bound: dict[str, str]) -> int:
    binds = [
        _bind(mount, bound.get(mount.destination, mount.source))
        for mount in container.record.mounts
        if mount.type not in ("tmpfs", "image")
    ]
    binds += _network_files(container, {bind.destination for bind in binds})
    work = asyncio.ensure_future(
        asyncio.to_thread(
            assemble,
            f"{container.directory}/rootfs",
            rootfs,
            binds,
            writable=not container.host_config.readonly_rootfs,
        )
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        if not work.cancelled() and work.exception() is None:
            os.close(work.result())
        raise


def _bind(mount: BoundMount, source: str) -> Bind:
    """As a start mounts it, but cut off from the machine's mounts as everything there is."""
    options = oci_mount(mount, source)["options"]
    return Bind(source, mount.destination, [word for word in options if word not in PROPAGATION])


def _network_files(container: Container, taken: set[str]) -> list[Bind]:
    """`/etc/hosts` and the like, once a start has written them."""
    files = ((f"{container.directory}/{name}", f"/etc/{name}") for name in _NETWORK_FILES)
    return [
        Bind(source, destination)
        for source, destination in files
        if destination not in taken and os.path.exists(source)
    ]
