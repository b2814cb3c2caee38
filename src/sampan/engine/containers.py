"""The containers: found, waited for, removed. They are made in `creation`, started and stopped in `lifecycle`."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence

import msgspec

from sampan.engine import port_updates, processes, streams, terms, updates
from sampan.engine.commit import Trees
from sampan.engine.container import Container, Event, Status, WaitResult
from sampan.engine.creation import Creation
from sampan.engine.deadlines import Deadlines
from sampan.engine.files import Files
from sampan.engine.filters import Filters, prunable
from sampan.engine.leases import LABEL
from sampan.engine.lifecycle import Lifecycle
from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig, UpdateConfig
from sampan.engine.names import checked_name
from sampan.engine.policies import check_terms
from sampan.engine.resources import Machine
from sampan.engine.services import Services
from sampan.engine.signals import signal_number
from sampan.engine.sizes import WrittenSizes
from sampan.engine.streams import AttachOptions, LogOptions
from sampan.engine.validation import (
    checked_rename,
)
from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure, SampanError
from sampan.images.service import Images
from sampan.shim.streams import DETACHED, ClientStream

WAIT_CONDITIONS = frozenset({"not-running", "next-exit", "removed"})


class Containers:
    """All containers of one engine."""

    def __init__(self, services: Services, images: Images, machine: Machine) -> None:
        self._services = services
        self._registry = services.registry
        self._images = images
        self._machine = machine
        self._creation = Creation(services, images, machine)
        self.lifecycle = Lifecycle(services, self.remove_ended)
        self.change_network_terms: updates.ChangeTerms = updates.change_nothing
        self.publisher: port_updates.Publisher | None = None
        self.trees = Trees(services, images, self.lifecycle)
        self.written = WrittenSizes(services.snapshots)
        self.files = Files(services, self.lifecycle, self.written)
        self.deadlines = Deadlines(self._expire)

    # Look-ups

    def get(self, reference: str) -> Container:
        """The container with this name, ID or unique ID prefix.

        Raises:
            NotFound, InvalidArgument: dockerd's texts.
        """
        return self._registry.find(reference)

    def list(self) -> Sequence[Container]:
        """Every container, newest first."""
        return sorted(self._registry, key=lambda container: container.created_ns, reverse=True)

    def holds(self, container_id: str) -> bool:
        """Whether there is a container with exactly this ID."""
        return self._registry.has_id(container_id)

    def using_image(self, image_id: str) -> Sequence[Container]:
        """The containers made from an image."""
        return [container for container in self._registry if container.image[0] == image_id]

    def shown_image(self, container: Container) -> str:
        """The reference a container was made by, while it still means the container's image."""
        identity, reference = container.image
        try:
            return reference if self._images.resolve(reference).id == identity else identity
        except SampanError:
            return identity

    # Make and remove

    async def create(
        self,
        *,
        name: str | None,
        config: ContainerConfig,
        host_config: HostConfig,
        networking: NetworkingConfig | None = None,
        platform: str | None = None,
    ) -> tuple[str, Sequence[str]]:
        """See `Creation.create`, `terms` and `leases`."""
        wanted = terms.asked(config, host_config)
        check_terms(wanted, host_config.network_mode)
        with self._services.leases.joining(wanted.lease) as lease:
            if lease:
                wanted = msgspec.structs.replace(wanted, lease=lease)
                config.labels = {**config.labels, LABEL: lease}
            identity, warnings = await self._creation.create(
                name=name,
                config=config,
                host_config=host_config,
                networking=networking,
                platform=platform,
                terms=wanted,
            )
        container = self._registry.find(identity)
        self.lifecycle.emit(container, "create")
        self.deadlines.watch(container)
        return identity, warnings

    async def rename(self, reference: str, name: str) -> None:
        """Give a container another name.

        Raises:
            InvalidArgument, Conflict: dockerd's texts.
        """
        checked_rename(name)
        container = self.get(reference)
        checked_rename(name, container.name)
        try:
            wanted = checked_name(name)
        except InvalidArgument as failure:
            raise InvalidArgument(
                f"Error when allocating new name: {failure.message}".replace("name (", "name (/")
            ) from failure
        async with container.lock:
            old = container.name
            self._registry.reserve(wanted, container.id)
            self._registry.rename(container, wanted)
            self._services.networking.renamed(container)
        self.lifecycle.emit(container, "rename", oldName=f"/{old}")

    async def update(self, reference: str, change: UpdateConfig) -> Sequence[str]:
        """See `updates.update`; return the warnings."""
        container = self.get(reference)
        if change.publish_add or change.publish_remove:
            assert self.publisher is not None, "the engine has not set it"
            await port_updates.publish(container, change, self.publisher, self._registry)
        warnings = await updates.update(
            container, change, self._registry, self._machine, self.change_network_terms
        )
        self.deadlines.watch(container)
        self.lifecycle.order.wake()
        self.lifecycle.emit(container, "update")
        return warnings

    async def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container and everything that is its own.

        Raises:
            Conflict: it runs and `force` is not given; dockerd's text.
        """
        container = self.get(reference)
        if container.state.status is Status.REMOVING:
            raise Conflict(f"removal of container {container.id} is already in progress")
        while self._registry.holds(container):
            if container.state.counts_as_running:
                if not force:
                    raise Conflict(_running_text(container))
                await self.lifecycle.stopping.force_end(container)
            try:
                await self.remove_ended(container, volumes=volumes)
            except Conflict:
                # A start was under way; with --rm the engine itself may have been faster.
                if not (force and container.state.counts_as_running):
                    raise

    async def remove_ended(self, container: Container, *, volumes: bool = False) -> None:
        """Remove a container that does not run; without effect when it is gone already.

        With `volumes`, and for one that was to be removed at its end, its anonymous volumes go, too.
        The removal is noted first, so that after a crash in the middle a new daemon ends it.

        Raises:
            Conflict: it runs.
        """
        async with container.lock:
            if not self._registry.holds(container):
                return
            if container.state.counts_as_running:
                raise Conflict(_running_text(container))
            container.move(Event.REMOVAL)
            self._registry.save(container)
            self.lifecycle.order.give_up(container, NotFound(f"No such container: {container.id}"))
            try:
                if container.last_shim is not None:
                    await container.last_shim.gone
                self._services.snapshots.remove(container.id)
                _delete_directory(container.directory)
                if volumes or container.host_config.auto_remove:
                    self._services.volumes.remove_anonymous(container.record.mounts, container)
                # Told first: a daemon that is killed in between leaves the next one to remove the row,
                # which sees that it was told.
                if not container.removal_told:
                    container.removal_told = True
                    self.lifecycle.emit(container, "destroy")
                self._registry.remove(container)
            except BaseException as error:
                container.move(Event.REMOVAL_FAILED)
                container.state.error = str(error)
                raise
        container.close_parked()
        self.deadlines.forget(container)
        container.fail_waiters()

    async def _expire(self, container: Container) -> None:
        """Remove a container whose time is over, with its anonymous volumes."""
        if self._registry.holds(container):
            await self.lifecycle.stopping.expire(container)
            await self.remove_if_there(container.id)

    async def remove_if_there(self, container_id: str) -> None:
        """Remove a container with its anonymous volumes, whatever it does; somebody may be faster.

        Raises:
            RuntimeFailure: its process does not end, or the disk refuses.
        """
        try:
            await self.remove(container_id, force=True, volumes=True)
        except NotFound:
            return
        except Conflict:
            await self.get(container_id).wait("removed")

    async def prune(self, filters: Filters) -> tuple[Sequence[str], int]:
        """Remove all stopped containers that match; return their IDs and the bytes set free."""
        removed, freed = [], 0
        for container in self.list():
            if container.state.counts_as_running or not prunable(container, filters):
                continue
            size = self._services.snapshots.usage_bytes(container.id)
            try:
                await self.remove_ended(container)
            except Conflict:
                continue
            removed.append(container.id)
            freed += size
        self._services.events.emit("container", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    # The process

    async def start(self, reference: str, host_config: HostConfig | None = None) -> None:
        """See `Lifecycle.start`; with what `Creation.give_host_config` says of a `host_config`."""
        container = self.get(reference)
        if host_config is not None:
            await self._creation.give_host_config(container, host_config)
        await self.lifecycle.start(container)

    async def turn(self, reference: str) -> None:
        """See `Lifecycle.turn`."""
        await self.lifecycle.turn(self.get(reference))

    async def stop(
        self, reference: str, *, signal: str | None = None, timeout_s: int | None = None
    ) -> None:
        """See `Lifecycle.stop`."""
        await self.lifecycle.stopping.stop(
            self.get(reference), signal_name=signal, timeout_s=timeout_s
        )

    async def restart(
        self, reference: str, *, signal: str | None = None, timeout_s: int | None = None
    ) -> None:
        """See `Lifecycle.restart`; dockerd's text around what the start says."""
        container = self.get(reference)
        try:
            await self.lifecycle.restart(container, signal_name=signal, timeout_s=timeout_s)
        except (RuntimeFailure, NotFound) as failure:
            raise RuntimeFailure(
                "restart",
                f"Cannot restart container {reference}: {failure.message}",
                path=getattr(failure, "path", None),
                errno=getattr(failure, "errno", None),
                hint=failure.hint,
            ) from failure

    async def kill(self, reference: str, signal: str = "SIGKILL") -> None:
        """See `Lifecycle.kill`; dockerd's text around the refusal, and its order of looking at things."""
        signal_number(signal)
        try:
            await self.lifecycle.stopping.kill(self.get(reference), signal)
        except (Conflict, NotFound) as failure:
            raise type(failure)(
                f"Cannot kill container: {reference}: {failure.message}"
            ) from failure

    async def pause(self, reference: str) -> None:
        """See `Lifecycle.pause`."""
        await self.lifecycle.freezing.pause(self.get(reference))

    async def unpause(self, reference: str) -> None:
        """See `Lifecycle.unpause`."""
        await self.lifecycle.freezing.unpause(self.get(reference))

    def wait(self, reference: str, condition: str = "not-running") -> asyncio.Future[WaitResult]:
        """A future for the container's end; registered when this returns.

        Raises:
            InvalidArgument: an unknown condition.
        """
        if (condition or "not-running") not in WAIT_CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        return self.get(reference).wait(condition or "not-running")

    async def top(
        self, reference: str, arguments: str = ""
    ) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """See `processes.top`."""
        return await processes.top(self.get(reference), arguments)

    async def resize(self, reference: str, rows: int, columns: int) -> None:
        """Set the size of the container's terminal.

        Raises:
            Conflict: it does not run.
        """
        container = self.get(reference)
        if container.shim is None:
            raise Conflict(f"Container {container.id} is not running")
        await container.shim.resize(rows, columns)

    async def size(self, reference: str) -> tuple[int, int]:
        """Bytes of the writable layer, and of it together with the image."""
        container = self.get(reference)
        written = (await self.written.of([container]))[container.id]
        return written, written + self._image_size(container)

    async def sizes(self) -> dict[str, tuple[int, int]]:
        """`size` of every container, by ID."""
        containers = self.list()
        written = await self.written.of(containers)
        return {
            container.id: (
                written[container.id],
                written[container.id] + self._image_size(container),
            )
            for container in containers
        }

    def layer_directories(self, container: Container) -> dict[str, str]:
        """Docker's `GraphDriver.Data`: where the container's overlay has its directories.

        Nothing is mounted at `MergedDir` on the host: the overlay is in the container's own mount
        namespace, see /proc/PID/root.
        """
        (mount,) = self._services.snapshots.mounts(container.id)[:1]
        options = dict(option.partition("=")[::2] for option in mount.options)
        return {
            "LowerDir": options.get("lowerdir", ""),
            "MergedDir": f"{container.directory}/rootfs",
            "UpperDir": options.get("upperdir", ""),
            "WorkDir": options.get("workdir", ""),
        }

    def _image_size(self, container: Container) -> int:
        try:
            return self._images.resolve(container.image[0]).size
        except SampanError:
            return 0

    # Streams

    def logs(self, reference: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The log's lines; see `streams.read_log`.

        Raises:
            Unsupported: at once, not while iterating: there is nothing that could be read.
        """
        container = self.get(reference)
        streams.check_readable(container)
        return streams.read_log(container, options)

    async def attach(self, reference: str, options: AttachOptions, stream: ClientStream) -> None:
        """Connect a client's socket with the container; returns when it is handed over.

        The stream is closed here in every case, or by whoever has it then.
        """
        try:
            container = self.get(reference)
            streams.check_attachable(container)
            streams.prepare(container, options, stream)
        except BaseException:
            stream.close()
            raise
        if options.logs:
            stream.sock.setblocking(False)
            await self._send_log(container, stream)
        if not options.stream:
            stream.close()
            return
        self.lifecycle.emit(container, "attach")
        stream.on_end = lambda reason: (
            self.lifecycle.emit(container, "detach") if reason == DETACHED else None
        )
        if container.shim is not None:
            await container.shim.attach(stream)
        else:
            container.parked.append(stream)

    async def _send_log(self, container: Container, stream: ClientStream) -> None:
        loop = asyncio.get_running_loop()
        wanted = LogOptions(stdout=stream.stdout, stderr=stream.stderr)
        try:
            streams.check_readable(container)
            async for chunk in streams.read_log(container, wanted):
                await loop.sock_sendall(stream.sock, chunk)
        except BaseException:
            stream.close()
            raise


def _running_text(container: Container) -> str:
    if container.state.restarting:
        return (
            f"You cannot remove a restarting container {container.id}. Stop the container before "
            "attempting removal or force remove"
        )
    if container.state.status is Status.PAUSED:
        return (
            f"You cannot remove a paused container {container.id}. Unpause and then stop the "
            "container before attempting removal or force remove"
        )
    return (
        f"You cannot remove a running container {container.id}. Stop the container before "
        "attempting removal or force remove"
    )


def _delete_directory(directory: str) -> None:
    """Delete a container's directory: a handful of files, no tree of the user's."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        pass
