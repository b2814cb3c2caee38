"""The containers: made, found, waited for, removed. Starting and stopping is in `lifecycle`."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence

from sampan.engine import processes, sharing, streams, updates
from sampan.engine.commit import Trees
from sampan.engine.container import BoundMount, Container, Event, Record, Status, WaitResult
from sampan.engine.files import Files
from sampan.engine.filters import Filters, prunable
from sampan.engine.health_probes import take_wishes
from sampan.engine.lifecycle import Lifecycle
from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig, UpdateConfig
from sampan.engine.mounts import make_sources, parse_mounts, target, volumes_from
from sampan.engine.names import checked_name, container_id, random_name
from sampan.engine.networking import normalised_mode, planned_endpoints
from sampan.engine.resources import Machine
from sampan.engine.security import effective_capabilities
from sampan.engine.services import Services
from sampan.engine.sizes import WrittenSizes
from sampan.engine.streams import AttachOptions, LogOptions
from sampan.engine.validation import (
    as_list,
    check_request,
    checked_rename,
    fill_in,
    merge_image,
)
from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure, SampanError
from sampan.images.image import Image
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
        self.lifecycle = Lifecycle(services, self.remove_ended)
        self.trees = Trees(services, images, self.lifecycle)
        self.written = WrittenSizes(services.snapshots)
        self.files = Files(services, self.lifecycle, self.written)

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
        """Make a container; return its ID and the warnings.

        When this returns the container is in the database. When it raises nothing of it is left.

        Raises:
            InvalidArgument, NotFound, Conflict, Unsupported: in dockerd's words.
        """
        identity = container_id()
        chosen = checked_name(name) if name else random_name(self._registry)
        take_wishes(config, host_config)
        warnings = check_request(config, host_config, self._machine)
        image = self._images.resolve_for(config.image, platform)
        self._registry.reserve(chosen, identity)
        made: Sequence[BoundMount] = ()
        try:
            record = self._record(identity, chosen, config, host_config, networking, image)
            made = await self._make_volumes(record, image)
            self._make(record, image)
        except OSError as error:
            self._registry.release(chosen, identity)
            self._services.volumes.remove_anonymous(made)
            raise RuntimeFailure(
                "create",
                f"container {chosen} cannot be made: {error.strerror}: {error.filename}",
                path=error.filename,
                errno=error.errno,
            ) from error
        except BaseException:
            self._registry.release(chosen, identity)
            self._services.volumes.remove_anonymous(made)
            raise
        self._images.use(image)
        self.lifecycle.emit(self._registry.find(identity), "create")
        return identity, warnings

    def _record(
        self,
        identity: str,
        name: str,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig | None,
        image: Image,
    ) -> Record:
        reference = config.image
        merge_image(config, image.config)
        command = [*as_list(config.entrypoint), *as_list(config.cmd)]
        host.network_mode = host.network_mode or "default"
        mode = normalised_mode(host.network_mode)
        if mode == "host" or host.uts_mode == "host":
            config.hostname = config.hostname or os.uname().nodename
        hostname = config.hostname = config.hostname or identity[:12]
        if mode.startswith("container:"):
            hostname, config.hostname = self._share_network(host, mode), ""
        sharing.name_donors(host, self._registry.find)
        parent = host.cgroup_parent or self._services.options.cgroup_parent
        fill_in(host, self._services.cgroup_version)
        others = [mount for text in host.volumes_from or () for mount in self._mounts_of(text)]
        mounts = parse_mounts(config, host, others)
        make_sources(mounts, host)
        return Record(
            id=identity,
            name=name,
            created_ns=time.time_ns(),
            config=config,
            host_config=host,
            networking=networking or NetworkingConfig(),
            image_id=image.id,
            image_reference=reference,
            path=command[0],
            args=command[1:],
            endpoints=planned_endpoints(mode),
            mounts=mounts,
            hostname=hostname,
            cgroup_path=f"{parent if parent.startswith('/') else '/' + parent}/{identity}",
            capabilities=effective_capabilities(host),
        )

    def _share_network(self, host: HostConfig, mode: str) -> str:
        """Name the other container by its ID; return its host name, empty when it does not exist
        (which is refused at the start)."""
        try:
            other = self._registry.find(mode.partition(":")[2])
        except NotFound:
            return ""
        host.network_mode = f"container:{other.id}"
        return other.record.hostname

    def _mounts_of(self, text: str) -> Sequence[BoundMount]:
        """The mounts that `--volumes-from` means.

        Raises:
            InvalidArgument: there is no such container. Clients take a 404 for a missing image.
        """
        try:
            other = self._registry.find(text.partition(":")[0])
        except NotFound as error:
            raise InvalidArgument(error.message) from error
        return volumes_from(text, other.record.mounts)

    async def _make_volumes(self, record: Record, image: Image) -> Sequence[BoundMount]:
        """Make the volumes that a container wants, with what the image has in their place; return the
        mounts of those that were named for it alone."""
        volumes = self._services.volumes
        drivers = {
            target(spec.target): spec.volume_options
            for spec in record.host_config.mounts or ()
            if spec.type == "volume"
        }
        made = []
        try:
            for mount in record.mounts:
                if mount.type != "volume":
                    continue
                options = drivers.get(mount.destination)
                driver = options.driver_config if options else None
                volume = volumes.create(
                    mount.name,
                    driver=(driver.name if driver else "") or record.host_config.volume_driver,
                    options=driver.options if driver else None,
                    labels=options.labels if options else None,
                )
                if not mount.name:
                    mount.name = volume.name
                    made.append(mount)
                mount.source = volume.path
                if not mount.no_copy and not mount.subpath:
                    await volumes.fill(mount, self._services.snapshots.trees(image.parent))
        except BaseException:
            volumes.remove_anonymous(made)
            raise
        return made

    def _make(self, record: Record, image: Image) -> None:
        directory = self._registry.directory_of(record.id)
        os.mkdir(directory, 0o710)
        try:
            os.mkdir(f"{directory}/rootfs", 0o755)
            self._services.snapshots.prepare(
                record.id, image.parent, volatile=record.host_config.auto_remove
            )
            try:
                self._registry.add(record)
            except BaseException:
                self._services.snapshots.remove(record.id)
                raise
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    async def rename(self, reference: str, name: str) -> None:
        """Give a container another name.

        Raises:
            InvalidArgument, Conflict: dockerd's texts.
        """
        container = self.get(reference)
        checked_rename(name, container.name)
        wanted = checked_name(name)
        async with container.lock:
            old = container.name
            self._registry.reserve(wanted, container.id)
            self._registry.rename(container, wanted)
        self.lifecycle.emit(container, "rename", oldName=f"/{old}")

    async def update(self, reference: str, change: UpdateConfig) -> Sequence[str]:
        """See `updates.update`; return the warnings."""
        container = self.get(reference)
        warnings = await updates.update(container, change, self._registry, self._machine)
        self.lifecycle.emit(container, "update")
        return warnings

    async def remove(
        self, reference: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container and everything that is its own.

        Raises:
            Conflict: it runs and `force` is not given; dockerd's text.
        """
        container = self.get(reference)
        if link:
            raise InvalidArgument("links between containers are not built yet")
        if container.state.status is Status.REMOVING:
            raise Conflict(f"removal of container {container.id} is already in progress")
        while self._registry.holds(container):
            if container.state.counts_as_running:
                if not force:
                    raise Conflict(_running_text(container))
                await self.lifecycle.force_end(container)
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
            try:
                if container.last_shim is not None:
                    await container.last_shim.gone
                self._services.snapshots.remove(container.id)
                _delete_directory(container.directory)
                self._registry.remove(container)
            except BaseException as error:
                container.move(Event.REMOVAL_FAILED)
                container.state.error = str(error)
                raise
        if volumes or container.host_config.auto_remove:
            self._services.volumes.remove_anonymous(container.record.mounts)
        container.close_parked()
        self.lifecycle.emit(container, "destroy")
        container.fail_waiters()

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

    async def start(self, reference: str) -> None:
        """See `Lifecycle.start`."""
        await self.lifecycle.start(self.get(reference))

    async def stop(
        self, reference: str, *, signal: str | None = None, timeout_s: int | None = None
    ) -> None:
        """See `Lifecycle.stop`."""
        await self.lifecycle.stop(self.get(reference), signal_name=signal, timeout_s=timeout_s)

    async def restart(
        self, reference: str, *, signal: str | None = None, timeout_s: int | None = None
    ) -> None:
        """See `Lifecycle.restart`."""
        await self.lifecycle.restart(self.get(reference), signal_name=signal, timeout_s=timeout_s)

    async def kill(self, reference: str, signal: str = "SIGKILL") -> None:
        """See `Lifecycle.kill`."""
        await self.lifecycle.kill(self.get(reference), signal)

    async def pause(self, reference: str) -> None:
        """See `Lifecycle.pause`."""
        await self.lifecycle.pause(self.get(reference))

    async def unpause(self, reference: str) -> None:
        """See `Lifecycle.unpause`."""
        await self.lifecycle.unpause(self.get(reference))

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
