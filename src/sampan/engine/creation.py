"""Making containers: what was asked for, the image and the machine become a record, directories, a row.

The row comes last: what has none is removed when a daemon starts, and when a step fails what was made
is removed at once, in reverse.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from sampan.engine import boot_clock, image_mounts, preset, sharing
from sampan.engine.container import BoundMount, Container, Record
from sampan.engine.health_probes import take_wishes
from sampan.engine.leases import LABEL
from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig
from sampan.engine.mounts import make_sources, parse_mounts, target, volumes_from
from sampan.engine.names import checked_name, container_id, random_name
from sampan.engine.networking import normalised_mode, planned_endpoints
from sampan.engine.resources import Machine
from sampan.engine.security import effective_capabilities
from sampan.engine.services import Services
from sampan.engine.storage_options import container_size
from sampan.engine.terms import NONE, Terms
from sampan.engine.validation import as_list, check_request, fill_in, merge_image
from sampan.errors import InvalidArgument, NotFound, RuntimeFailure
from sampan.images.image import Image
from sampan.images.service import Images

# What of a record follows from the host's half of a container, beside what the image presets.
OF_THE_HOST = (
    *("config", "host_config", "endpoints", "mounts", "hostname"),
    *("cgroup_path", "capabilities"),
)


class Creation:
    """Makes containers in one engine's registry."""

    def __init__(self, services: Services, images: Images, machine: Machine) -> None:
        self._services = services
        self._registry = services.registry
        self._images = images
        self._machine = machine

    async def create(
        self,
        *,
        name: str | None,
        config: ContainerConfig,
        host_config: HostConfig,
        networking: NetworkingConfig | None = None,
        platform: str | None = None,
        terms: Terms = NONE,
    ) -> tuple[str, Sequence[str]]:
        """Make a container; return its ID and the warnings.

        When this returns the container is in the database. When it raises nothing of it is left.

        Raises:
            InvalidArgument, NotFound, Conflict, Unsupported: in dockerd's words.
        """
        identity = container_id()
        chosen = checked_name(name) if name else random_name(self._registry)
        take_wishes(config, host_config)
        preset.apply(host_config, self._services.preset())
        self._services.runtimes.check(host_config)
        warnings = check_request(config, host_config, self._machine)
        image = self._images.resolve_for(config.image, platform)
        size_bytes = self._size_of(host_config)
        self._registry.reserve(chosen, identity)
        made: Sequence[BoundMount] = ()
        try:
            record = self._record(identity, chosen, config, host_config, networking, image)
            if terms is not NONE:
                record.terms = terms
                record.deadline = boot_clock.after_or_never(terms.ttl_ns)
            made = await self._make_volumes(record, image)
            self._make(record, image, size_bytes)
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
        return identity, warnings

    async def give_host_config(self, container: Container, host: HostConfig) -> None:
        """Replace the host's half of a container that does not run: clients before API 1.24 send it with
        the start. Anonymous volumes stay where they are.

        Raises:
            InvalidArgument, Conflict, Unsupported: in dockerd's words; the container is as before.
        """
        async with container.lock:
            if container.state.counts_as_running:
                return
            old = container.record
            if host.storage_opt and host.storage_opt != old.host_config.storage_opt:
                raise InvalidArgument(
                    "the size of a container's file system is given when it is made"
                )
            host.storage_opt = old.host_config.storage_opt
            config = msgspec.convert(msgspec.to_builtins(old.config), ContainerConfig)
            if config.hostname == old.id[:12]:
                config.hostname = ""
            self._services.runtimes.check(host)
            check_request(config, host, self._machine)
            image = self._images.resolve(old.image_id)
            new = self._record(old.id, old.name, config, host, old.networking, image)
            _take_volumes(new.mounts, old.mounts)
            made = await self._make_volumes(new, image)
            values = {name: getattr(new, name) for name in OF_THE_HOST}
            before = {name: getattr(old, name) for name in OF_THE_HOST}
            _assign(old, values)
            try:
                self._registry.write(container)
            except BaseException:
                _assign(old, before)
                self._services.volumes.remove_anonymous(made)
                raise

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
        self._services.networking.resolve_links(identity, host)
        sharing.name_donors(host, self._registry.find)
        parent = host.cgroup_parent or self._services.options.cgroup_parent
        fill_in(host, self._services.cgroup_version)
        others = [mount for text in host.volumes_from or () for mount in self._mounts_of(text)]
        mounts = parse_mounts(config, host, others)
        make_sources(mounts, host)
        image_mounts.resolve(mounts, self._images)
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
            endpoints=planned_endpoints(mode, networking.endpoints_config if networking else None),
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
                    labels=_leased(options.labels if options else None, record.terms.lease),
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

    def _size_of(self, host: HostConfig) -> int:
        """How much the container may write, in bytes; 0 for no limit."""
        default = self._services.options.container_size_bytes
        return container_size(host.storage_opt, default, self._services.snapshots.sizes.supported)

    def _make(self, record: Record, image: Image, size_bytes: int) -> None:
        directory = self._registry.directory_of(record.id)
        os.mkdir(directory, 0o710)
        try:
            os.mkdir(f"{directory}/rootfs", 0o755)
            self._services.snapshots.prepare(
                record.id,
                image.parent,
                volatile=record.host_config.auto_remove,
                size_bytes=size_bytes,
            )
            try:
                self._registry.add(record)
            except BaseException:
                self._services.snapshots.remove(record.id)
                raise
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise


def _take_volumes(new: Sequence[BoundMount], old: Sequence[BoundMount]) -> None:
    """Give anonymous volumes the names they have had already."""
    names = {mount.destination: mount.name for mount in old if mount.type == "volume"}
    for mount in new:
        if mount.type == "volume" and not mount.name:
            mount.name = names.get(mount.destination, "")


def _assign(record: Record, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(record, name, value)


def _leased(labels: dict[str, str] | None, lease: str) -> dict[str, str] | None:
    """The labels of a volume that a container under a lease brings with it."""
    return {**(labels or {}), LABEL: lease} if lease else labels
