"""The user's networks: made, listed, removed; and containers connected with them while they run.

A network is first made in the kernel, then written to the database: what has no row is not missed, and
what has a row and is gone in the kernel is made anew when the engine opens.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from sampan.engine.events import EventBus
from sampan.engine.network_plan import NetworkCreate, planned
from sampan.engine.networking import Networking
from sampan.engine.policies import policy_among
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound, SampanError
from sampan.linux.netlink import delete_link
from sampan.linux.nftables import NftError
from sampan.network import inspect, parents
from sampan.network.addressing import SubnetPlan
from sampan.network.bridge import DISABLED
from sampan.network.choosing import choosing_subnet
from sampan.network.driver import Network, new_id
from sampan.network.machine import Machine
from sampan.network.on_parent import OnParent
from sampan.network.pools import DEFAULT_POOLS, Pool, unique_local_pool
from sampan.network.rules import BridgeRules
from sampan.network.user_bridge import UserBridge, parse_options, stray_bridges
from sampan.oci.go_time import format_time
from sampan.state.networks import NetworkRecord, NetworkRow, NetworkRows, SubnetRecord

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

log = logging.getLogger(__name__)

PREDEFINED = ("bridge", "host", "none", "default")
PREDEFINED_DRIVERS = {"host": "host", "null": "none"}
DRIVERS = ("bridge", "macvlan", "ipvlan")


class Entry:
    """A network as the engine holds it; `network` is None for one that is only a configuration."""

    __slots__ = ("network", "removing", "row")

    def __init__(self, row: NetworkRow, network: Network | None) -> None:
        self.row = row
        self.network = network
        self.removing = False

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def record(self) -> NetworkRecord:
        return self.row.record

    @property
    def predefined(self) -> bool:
        """One of the three that there are from the start."""
        return not self.row.created_ns

    @property
    def in_use(self) -> bool:
        """Whether a container that runs is in it."""
        return bool(self.network and self.network.attachments())


class Networks:
    """All networks of one engine, by ID, name or the beginning of an ID."""

    def __init__(
        self,
        rows: NetworkRows,
        networking: Networking,
        events: EventBus,
        *,
        pools: Sequence[Pool] = (),
        defaults: Mapping[str, Mapping[str, str]] | None = None,
        seed: str = "",
    ) -> None:
        self._rows = rows
        self._networking = networking
        self._events = events
        self._pools = [*(pools or DEFAULT_POOLS), unique_local_pool(seed)]
        self._defaults = defaults or {}
        self._owner = seed
        self._opened_ns = time.time_ns()
        self._creating = asyncio.Lock()
        self.changing = asyncio.Lock()  # of who changes what is kept of a network, for the while
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        for network in networking.networks.values():
            if network.name != "bridge" or networking.bridge.bridge != DISABLED:
                record = NetworkRecord(driver=network.driver)
                self._add(Entry(NetworkRow(network.id, network.name, 0, record), network))

    def open(self) -> None:
        """Load what the database has. The kernel is asked by `ensure`."""
        for row in self._rows.all():
            try:
                entry = Entry(row, None if row.record.config_only else self._made(row))
            except SampanError as error:
                log.error("network %s: %s", row.name, error)
                continue
            self._add(entry)
            if entry.network is not None:
                self._networking.add(entry.network)
        self._networking.bridge.beside(self._rules)

    def ensure(self) -> list[str]:
        """Put back what the kernel lost; return what is wrong with networks that cannot be. Blocks."""
        machine, failed = Machine(), []
        strays = stray_bridges(machine, self._owner, self._entries)
        for name in [*strays, *parents.strays(machine, self._owner, self._entries)]:
            delete_link(name)  # of a daemon that was killed while it made a network
        for entry in list(self._entries.values()):
            network = entry.network
            if isinstance(network, UserBridge | OnParent):
                try:
                    network.ensure(machine)
                except SampanError as error:
                    failed.append(f"network {entry.name}: {error.message}")
        return failed

    # Look-ups

    def get(self, reference: str) -> Entry:
        """The network of that ID, name or unique beginning of an ID.

        Raises:
            NotFound: there is none; InvalidArgument: there are several; dockerd's texts.
        """
        identity = reference if reference in self._entries else self._names.get(reference, "")
        if identity:
            return self._entries[identity]
        found = [key for key in self._entries if reference and key.startswith(reference)]
        if len(found) > 1:
            raise InvalidArgument(
                f"network {reference} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        if not found:
            raise NotFound(f"network {reference} not found")
        return self._entries[found[0]]

    def policy_of(self, network: Network) -> str:
        """The egress policy of a network, empty for none; see `policies`."""
        entry = self._entries.get(network.id)
        return policy_among(entry.record.options, entry.record.labels) if entry else ""

    def all(self) -> list[Entry]:
        """All networks, the three that there are from the start first."""
        return list(self._entries.values())

    def document(
        self, entry: Entry, names: Mapping[str, str] | None = None, *, status: bool = False
    ) -> dict[str, Any]:
        """Docker's `Network`; with `names` (container names by ID) its containers are listed."""
        record = entry.record
        network: Any = entry.network
        created = format_time(entry.row.created_ns or self._opened_ns)
        if entry.predefined and network is not None:
            return inspect.network_resource(network, created=created, names=names)
        found = inspect.network_resource(
            network or cast("Network", _Configuration(entry)), created=created, names=names
        )
        plans = getattr(network, "plans", ()) or [_plan(each) for each in record.subnets]
        found |= {
            "Driver": record.driver,
            "EnableIPv4": record.ipv4,
            "EnableIPv6": record.ipv6,
            "IPAM": {
                "Driver": record.ipam_driver,
                "Options": record.ipam_options,
                "Config": [plan.document() for plan in plans],
            },
            "Internal": record.internal,
            "Attachable": record.attachable,
            "ConfigFrom": {"Network": record.config_from},
            "ConfigOnly": record.config_only,
            "Options": record.options,
            "Labels": record.labels,
        }
        if status and isinstance(network, UserBridge | OnParent):
            found["Status"] = {"IPAM": {"Subnets": network.status()}}
        return found

    # Create, remove

    async def create(self, request: NetworkCreate) -> tuple[str, str]:
        """Make a network; return its ID and a warning.

        When it raises nothing of it is left.

        Raises:
            InvalidArgument, Conflict, Forbidden, NotFound, Unsupported, Unavailable: dockerd's texts.
        """
        if request.config_from and request.config_from.network:
            request = self._with_configuration(request)
        elif not request.config_only:
            request = self._with_defaults(request)
        _check_name(request.name)
        if request.name in self._names:
            raise Conflict(f"network with name {request.name} already exists")
        _check(request)
        if request.config_only:
            return self._create_configuration(request), ""
        async with self._creating:
            if request.name in self._names:
                raise Conflict(f"network with name {request.name} already exists")
            row, network = await asyncio.to_thread(self._make, request, self._subnets())
            try:
                self._enter(network, row)
            except BaseException:
                await asyncio.to_thread(network.remove)
                raise
            entry = Entry(row, network)
            self._add(entry)
        self._networking.add(network)
        self._emit("create", entry)
        return row.id, ""

    def _make(
        self, request: NetworkCreate, others: Sequence[IPv4Network | IPv6Network]
    ) -> tuple[NetworkRow, UserBridge | OnParent]:
        """Choose what the request leaves open and make the network in the kernel, while no other
        engine of the machine does. Blocks."""
        with choosing_subnet():
            machine = Machine()
            record = planned(request, self._pools, others, machine.taken)
            row = NetworkRow(new_id(), request.name, time.time_ns(), record)
            network = self._made(row)
            self._check_beside_others(network)
            network.ensure(machine)
        return row, network

    def _enter(self, network: UserBridge | OnParent, row: NetworkRow) -> None:
        firewall = self._networking.bridge.firewall
        if isinstance(network, UserBridge):
            firewall.add(network.rules())
        try:
            self._rows.insert(row)
        except BaseException:
            firewall.drop(network.bridge)
            raise

    async def remove(self, reference: str) -> None:
        """Remove a network that nobody uses.

        Raises:
            NotFound; Forbidden: it is predefined or in use; dockerd's texts.
        """
        entry = self.get(reference)
        if entry.predefined:
            raise Forbidden(f"{entry.name} is a pre-defined network and cannot be removed")
        if entry.removing:
            raise NotFound(f"network {reference} not found")
        if entry.in_use:
            assert entry.network is not None
            attachment = next(iter(entry.network.attachments()))
            raise Forbidden(
                f"error while removing network: network {entry.name} has active endpoints "
                f'(name:"{self._container_name(attachment.container_id)}" '
                f'id:"{attachment.endpoint_id[:12]}")'
            )
        used_by = next((e.name for e in self.all() if e.record.config_from == entry.name), "")
        if entry.record.config_only and used_by:
            raise Forbidden(
                f'error while removing network: configuration network "{entry.name}" is in use '
                f"by network {used_by}"
            )
        entry.removing = True  # nobody connects with it from here on
        network = entry.network
        if network is not None:
            self._networking.drop(network)
        try:
            if isinstance(network, UserBridge | OnParent):
                await asyncio.to_thread(self._take_down, network)
            self._rows.delete(entry.id)
        finally:
            self._forget(entry)
        self._emit("destroy", entry)

    def _take_down(self, network: UserBridge | OnParent) -> None:
        """Blocks; what cannot be taken away is logged, since the network is none any more."""
        try:
            if isinstance(network, OnParent):
                network.remove(self._on_parents())
                return
            self._networking.bridge.firewall.drop(network.bridge)
            network.remove()
        except (OSError, NftError) as error:
            log.error("network %s: %s", network.name, error)

    def rewrite(self, entry: Entry, record: NetworkRecord) -> None:
        """Keep something else of a network, from now on."""
        row = dataclasses.replace(entry.row, record=record)
        self._rows.update(row)
        entry.row = row
        self._emit("update", entry)

    async def prune(self, entries: Iterable[Entry]) -> list[str]:
        """Remove those of these networks that nobody uses; return their names."""
        removed = []
        for entry in list(entries):
            if entry.predefined or entry.in_use or entry.removing:
                continue
            try:
                await self.remove(entry.id)
            except (NotFound, Forbidden):
                continue  # somebody was faster
            removed.append(entry.name)
        self._events.emit("network", "prune", "", {"reclaimed": "0"})
        return removed

    # Inside

    def _made(self, row: NetworkRow) -> UserBridge | OnParent:
        """The network that a row describes.

        Raises:
            InvalidArgument: an option that cannot be meant.
        """
        record, name = row.record, row.name
        plans = [_plan(each) for each in record.subnets]
        internal = record.internal
        if record.driver == "bridge":
            options = parse_options(record.options, internal=internal, ipv6=record.ipv6)
            return UserBridge(name, row.id, plans, options, internal=internal, owner=self._owner)
        return OnParent(
            record.driver, name, row.id, plans, record.options, internal=internal, owner=self._owner
        )

    def _add(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._names[entry.name] = entry.id
        if entry.record.config_only:
            self._networking.configurations.add(entry.name)

    def _forget(self, entry: Entry) -> None:
        self._networking.configurations.discard(entry.name)
        self._entries.pop(entry.id, None)
        self._names.pop(entry.name, None)

    def _rules(self) -> list[BridgeRules]:
        """What all bridges of the user ask of the firewall."""
        return [e.network.rules() for e in self.all() if isinstance(e.network, UserBridge)]

    def _subnets(self) -> list[IPv4Network | IPv6Network]:
        """The subnets of all networks."""
        return [
            plan.network for entry in self.all() for plan in getattr(entry.network, "plans", ())
        ]

    def _check_beside_others(self, network: UserBridge | OnParent) -> None:
        """Two networks on one bridge would hand out each other's ports and rules."""
        if isinstance(network, OnParent):
            network.check_beside(self._on_parents())
            return
        others = [getattr(each.network, "bridge", "") for each in self.all()]
        if network.bridge in others:
            raise Forbidden(f"bridge name {network.bridge} is in use by another network")

    def _on_parents(self) -> list[OnParent]:
        return [each.network for each in self.all() if isinstance(each.network, OnParent)]

    def _create_configuration(self, request: NetworkCreate) -> str:
        record = planned(request, [], [], [])
        row = NetworkRow(new_id(), request.name, time.time_ns(), record)
        self._rows.insert(row)
        entry = Entry(row, None)
        self._add(entry)
        self._emit("create", entry)
        return row.id

    def _with_defaults(self, request: NetworkCreate) -> NetworkCreate:
        """A request with the driver's options that it does not name itself (`default-network-opts`)."""
        defaults = self._defaults.get(request.driver or "bridge")
        if not defaults:
            return request
        return msgspec.structs.replace(request, options={**defaults, **(request.options or {})})

    def _with_configuration(self, request: NetworkCreate) -> NetworkCreate:
        """A request completed by a configuration-only network."""
        assert request.config_from is not None
        name = request.config_from.network
        entry = self._entries.get(self._names.get(name, name))
        if entry is None or not entry.record.config_only:
            raise NotFound(f'configuration network "{name}" does not exist')
        return request.completed_by(entry.record)

    def _container_name(self, identity: str) -> str:
        return self._networking.name_of(identity)

    def _emit(self, action: str, entry: Entry) -> None:
        self._events.emit(
            "network", action, entry.id, {"name": entry.name, "type": entry.record.driver}
        )


class _Configuration:
    """A network that is only a configuration, in the eyes of `inspect`."""

    def __init__(self, entry: Entry) -> None:
        self.id = entry.id
        self.name = entry.name
        self.driver = entry.record.driver

    def attachments(self) -> tuple[()]:
        return ()

    def describe(self) -> dict[str, Any]:
        return {}


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if "/" in name or "\0" in name:
        raise InvalidArgument(f"invalid name: {name!r}: a slash cannot be in it")
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")


def _check(request: NetworkCreate) -> None:
    if request.driver in PREDEFINED_DRIVERS:
        raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
    if request.driver not in DRIVERS:
        raise NotFound(
            f'could not find plugin {request.driver} in v1 plugin registry: plugin "{request.driver}" '
            "not found"
        )
    if request.scope not in ("", "local"):
        raise InvalidArgument(f"network scope {request.scope}: there is no swarm")
    if request.ingress:
        raise InvalidArgument("ingress networks need swarm mode")
    if not request.wants_ipv4 and not request.enable_ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    policy_among(request.options, request.labels)


def _plan(record: SubnetRecord) -> SubnetPlan:
    return SubnetPlan(
        record.subnet,
        record.ip_range,
        record.gateway,
        tuple(record.kept.items()),
        record.asked,
    )
