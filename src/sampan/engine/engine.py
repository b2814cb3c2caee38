"""The engine: all parts put together over one data root.

engine = await Engine.open(EngineOptions(data_root=…), zygote)
identity, warnings = await engine.containers.create(…)
await engine.containers.start(identity)
await engine.close()                     # containers run on
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable
from typing import Any

from sampan.content.store import ContentStore
from sampan.engine import image_mounts
from sampan.engine.connections import Connections
from sampan.engine.container import Container
from sampan.engine.containers import Containers
from sampan.engine.events import EventBus
from sampan.engine.execs import Execs
from sampan.engine.health_checks import HealthChecks
from sampan.engine.housekeeping import Housekeeping
from sampan.engine.lease_members import LeaseMembers
from sampan.engine.leases import Leases
from sampan.engine.links import Links
from sampan.engine.networking import Networking
from sampan.engine.networks import Networks
from sampan.engine.options import EngineOptions
from sampan.engine.policies import Policies
from sampan.engine.ports import Ports
from sampan.engine.post_mortem import History
from sampan.engine.preset import LivePreset
from sampan.engine.recovery import recover
from sampan.engine.registry import Registry
from sampan.engine.registry_config import registry_fields
from sampan.engine.resolver import Resolver
from sampan.engine.runtimes import Runtimes
from sampan.engine.seccomp import Profiles
from sampan.engine.services import Services
from sampan.engine.space import DiskSpace
from sampan.engine.stats import Stats
from sampan.engine.storage_options import check_default
from sampan.engine.system import System
from sampan.engine.unhealthy import Unhealthy
from sampan.engine.usage import Usage
from sampan.engine.volumes import Volumes
from sampan.errors import SampanError, Unavailable
from sampan.images.distribution.client import Registries
from sampan.images.distribution.settings import LiveSettings
from sampan.images.service import Images
from sampan.network.bridge import DISABLED, BridgeNetwork
from sampan.network.egress import Egress
from sampan.network.published import PublishedRules
from sampan.shim.client import Zygote
from sampan.snapshots.overlay import Snapshotter
from sampan.state.containers import ContainerRows
from sampan.state.database import Database
from sampan.state.events import EventLog
from sampan.state.images import ImageRows
from sampan.state.leases import LeaseRows
from sampan.state.networks import NetworkRows
from sampan.state.post_mortems import PostMortems
from sampan.state.volumes import VolumeRows

log = logging.getLogger(__name__)


class Engine:
    """One engine on one data root. Everything runs on the event loop that opened it."""

    def __init__(
        self,
        *,
        options: EngineOptions,
        database: Database,
        services: Services,
        images: Images,
        containers: Containers,
        networks: Networks,
        system: System,
        registry_settings: LiveSettings,
    ) -> None:
        self.options = options
        self.registry_settings = registry_settings
        self.events = services.events
        self.history = services.history
        self.preset = services.preset
        self.networking = services.networking
        self.networks = networks
        self.connections = Connections(services, networks, containers.lifecycle)
        self.images = images
        self.volumes = services.volumes
        self.containers = containers
        self.execs = Execs(services, containers.lifecycle)
        self.health_checks = HealthChecks(services.registry, containers.lifecycle, self.execs)
        self.links = Links(services.registry, services.networking)
        services.networking.watchers.append(self.links)
        services.networking.link_lines = self.links.hosts
        services.networking.link_variables = self.links.environment
        services.networking.resolve_links = self.links.resolve
        self.policies = Policies(
            services.networking, Egress(table=services.networking.bridge.table)
        )
        services.networking.watchers.append(self.policies)
        containers.lifecycle.watchers.append(self.policies)
        containers.change_network_terms = self.policies.change
        self.resolver = Resolver(options.exec_root, services.networking, services.registry)
        self.ports = Ports(
            services.networking,
            PublishedRules(
                services.networking.bridge.table,
                respect_firewall=options.respect_host_firewall,
            ),
            address=options.publish_address,
        )
        services.networking.watchers.append(self.ports)
        containers.publisher = self.ports
        self.resolver.policy = self.policies.document
        self.policies.tell = self.resolver.refresh
        self.policies.told = self.resolver.caught_up
        self.connections.told = self.resolver.caught_up
        self.policies.refused_names = self.resolver.refused
        self.policies.of_network = networks.policy_of
        services.networking.watchers.append(self.resolver)
        services.networking.asks_resolver = self.resolver.serves
        containers.lifecycle.watchers.append(self.resolver)
        containers.lifecycle.watchers.append(self.health_checks)
        self.unhealthy = Unhealthy(services.registry, containers.lifecycle)
        containers.lifecycle.watchers.append(self.unhealthy)
        self.health_checks.judges.append(self.unhealthy.checked)
        self.leases = services.leases
        self.lease_members = LeaseMembers(containers, self.execs, services.volumes, networks)
        self.leases.end_members = self.lease_members.end
        self.system = system
        self.stats = Stats(services.registry, services.networking)
        self.usage = Usage(images, containers)
        self.housekeeping = Housekeeping(
            images.upkeep, services.profiles, services.events, services.history
        )
        self.space = DiskSpace(options.data_root, images, containers, services.volumes)
        self.identity = _identity(database)
        self._database = database
        self._services = services
        self._zygote = services.zygote

    @classmethod
    async def open(cls, options: EngineOptions, zygote: Zygote) -> Engine:
        """Open the data root, find the containers that run, set up the bridge.

        `zygote` is started and becomes the engine's, to be stopped by `close`.

        Raises:
            SampanError: the data root, the firewall or the bridge cannot be used, and why.
        """
        _make_directories(options)
        database = Database(f"{options.data_root}/engine.db")
        try:
            engine = cls._assemble(options, database, zygote)
            await asyncio.gather(
                asyncio.to_thread(engine.networking.bridge.ensure),
                asyncio.to_thread(engine.system.apparmor.load),
            )
            _keep_addresses(database, engine.networking.bridge.addresses)
            engine.networking.bridge.watch(asyncio.get_running_loop())
            for warning in engine.networking.bridge.warnings:
                log.warning("bridge network: %s", warning)
            await asyncio.to_thread(engine.ports.open)
            for failure in await asyncio.to_thread(engine.networks.ensure):
                log.error("%s", failure)
            await asyncio.to_thread(engine.policies.open)
            ended = await recover(engine._services, engine.containers.lifecycle)
            await engine.connections.put_back(engine.containers.list())
            engine.links.open()
            engine.ports.settle()
            engine.policies.settle()
            engine.resolver.client.open()
            await asyncio.to_thread(engine.volumes.tidy)
        except BaseException:
            database.close()
            raise
        for container in ended:
            await engine._remove(container)
        engine.containers.deadlines.open(engine.containers.list())
        engine.leases.open()
        engine.containers.lifecycle.start_by_policy(engine.containers.list())
        engine.images.upkeep.budget_bytes = options.disk_budget_bytes
        engine.housekeeping.run()
        return engine

    @classmethod
    def _assemble(cls, options: EngineOptions, database: Database, zygote: Zygote) -> Engine:
        events = EventBus(_event_log(options))
        registry = Registry(ContainerRows(database), options.containers_directory)
        snapshots = Snapshotter(options.data_root, hidden=[options.exec_root])
        check_default(options.container_size_bytes, snapshots.sizes.supported)
        volumes = Volumes(
            VolumeRows(database),
            registry,
            events,
            directory=options.volumes_directory,
            places=f"{options.exec_root}/volumes",
        )
        volumes.open()
        system = System(options)
        identity = _identity(database)
        registry_settings = LiveSettings(options.registries)
        images = Images(
            content=ContentStore(options.data_root),
            snapshots=snapshots,
            rows=ImageRows(database),
            emit=_image_events(events),
            in_use=lambda identity: image_mounts.users(registry, identity),
            registries=Registries(registry_settings),
        )
        services = Services(
            options=options,
            registry=registry,
            events=events,
            networking=Networking(
                BridgeNetwork(
                    bridge=options.bridge,
                    wishes=options.default_bridge,
                    available=options.address_pools,
                    former=_former_addresses(database),
                    seed=identity,
                    table=options.firewall_table or _own_table(options, identity),
                ),
                registry.find,
                host_gateway=options.host_gateway,
            ),
            snapshots=snapshots,
            volumes=volumes,
            profiles=Profiles(options.seccomp_directory),
            zygote=zygote,
            cgroup_version=system.cgroup_version,
            apparmor=system.apparmor,
            preset=LivePreset(options.preset),
            runtimes=Runtimes(options.runtimes),
            history=History(
                PostMortems(database, options.history_limits),
                registry,
                lines=options.history_lines,
            ),
            leases=Leases(LeaseRows(database), events),
        )
        containers = Containers(services, images, system.machine)
        networks = Networks(
            NetworkRows(database),
            services.networking,
            events,
            pools=options.address_pools,
            defaults=options.network_defaults,
            seed=identity,
        )
        networks.open()
        return cls(
            options=options,
            database=database,
            services=services,
            images=images,
            containers=containers,
            networks=networks,
            system=system,
            registry_settings=registry_settings,
        )

    def version(self) -> dict[str, Any]:
        """Docker's SystemVersion."""
        return self.system.version()

    def info(self) -> dict[str, Any]:
        """Docker's SystemInfo."""
        counts = {"running": 0, "paused": 0, "stopped": 0}
        for container in self.containers.list():
            status = container.state.status.value
            counts[status if status in counts else "stopped"] += 1
        document = self.system.info(
            identity=self.identity,
            containers=counts,
            images=len(self.images.list(all=False, filters={})),
            listeners=self.events.listeners,
        )
        return {**document, **registry_fields(self.registry_settings(), os.environ)}

    def reload(self, options: EngineOptions) -> None:
        """Take up what of the options may change while the engine runs, and tell it in an event."""
        self.registry_settings.current = options.registries
        self.preset.current = options.preset
        self.events.set_limits(options.event_limits)
        self.history.set_limits(options.history_limits, options.history_lines)
        self.housekeeping.set_budget(options.disk_budget_bytes)
        self.system.labels, self.system.debug = tuple(options.labels), options.debug
        self.events.emit("daemon", "reload", self.identity, self.system.reloaded(options))

    async def close(self) -> None:
        """Let go of everything: streams of events end, containers run on."""
        self.events.close()
        await self.images.registries.close()
        await self.leases.close()
        await self.containers.deadlines.close()
        await self.health_checks.close()
        await self.policies.close()
        await self.unhealthy.close()
        self.resolver.client.close()
        await self.containers.lifecycle.close()
        await self.history.close()
        await self._zygote.stop()
        await asyncio.to_thread(self._services.snapshots.close)
        self.ports.close()
        self.networking.bridge.close()
        self._database.close()

    async def _remove(self, container: Container) -> None:
        try:
            await self.containers.remove_ended(container)
        except (SampanError, OSError) as error:
            log.error("container %s: it could not be removed: %s", container.id, error)


def _own_table(options: EngineOptions, identity: str) -> str | None:
    """Engines without a bridge of their own are told apart by their identity."""
    return f"sampan-{identity[:8]}" if options.bridge == DISABLED else None


def _identity(database: Database) -> str:
    """The engine's ID, made once per data root."""
    rows = database.read("SELECT value FROM settings WHERE name = 'engine-id'")
    if rows:
        return str(rows[0][0])
    identity = str(uuid.uuid4())
    database.execute("INSERT INTO settings (name, value) VALUES ('engine-id', ?)", (identity,))
    return identity


def _former_addresses(database: Database) -> list[str]:
    """Those that the default bridge had last: a bridge that is gone gets them again if nobody has them."""
    rows = database.read("SELECT value FROM settings WHERE name = 'bridge-addresses'")
    return str(rows[0][0]).split() if rows else []


def _keep_addresses(database: Database, addresses: list[str]) -> None:
    if addresses and addresses != _former_addresses(database):
        database.execute(
            "INSERT OR REPLACE INTO settings (name, value) VALUES ('bridge-addresses', ?)",
            (" ".join(addresses),),
        )


def _image_events(events: EventBus) -> Callable[[str, str, dict[str, str]], None]:
    def emit(action: str, identity: str, attributes: dict[str, str]) -> None:
        events.emit("image", action, identity, attributes)

    return emit


def _event_log(options: EngineOptions) -> EventLog:
    try:
        return EventLog(options.events_directory, options.event_limits)
    except OSError as error:
        raise Unavailable(
            f"the events in {options.events_directory} cannot be used: {error.strerror}"
        ) from error


def _make_directories(options: EngineOptions) -> None:
    """The data root is nobody else's business; the run directory holds the socket."""
    for path, mode in (
        (options.data_root, 0o711),
        (options.containers_directory, 0o710),
        (options.seccomp_directory, 0o700),
        (options.exec_root, 0o711),
        (options.shims_directory, 0o700),
    ):
        os.makedirs(path, mode=mode, exist_ok=True)
