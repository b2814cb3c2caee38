"""The bridge driver: containers in one subnet behind a Linux bridge, outwards by masquerading.

    network = BridgeNetwork(bridge="sampan0")
    network.ensure()                                # at daemon start: bridge, forwarding, rules
    attachment = network.attach(container_id)       # microseconds, from memory
    …
    network.release(container_id)
    network.remove()                                # purge: nothing of it is left

What the daemon knows (who has which address) is memory; what the kernel knows (the bridge and its
address) is read from it and wins: a bridge that is there keeps its subnet over daemon restarts.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Any

from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError, Unavailable
from sampan.linux.netlink import IFNAMSIZ, VethEndpoint
from sampan.linux.nftables import NftError
from sampan.linux.nftwatch import RulesetWatch
from sampan.network import ipam
from sampan.network.driver import Attachment
from sampan.network.firewall import Firewall
from sampan.network.interface import BridgeInterface, mac_of
from sampan.network.rules import BridgeRules

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

DEFAULT_BRIDGE = "sampan0"
DEFAULT_TABLE = "sampan"
DISABLED = "none"  # dockerd's word for --bridge

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SETTLE_S = 0.2
_log = logging.getLogger(__name__)
_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


class BridgeNetwork:
    """The network `bridge` of one engine.

    `bridge` names the interface, which no two engines may share, or is `none` for an engine that
    has no bridge network; `bip` is its address
    (`172.30.0.1/16`), chosen so as to overlap nothing when not given; `table` names the nftables
    table, by default after the bridge; `mtu` is by default the smaller of 1500 and that of the
    interface with the default route; without `icc` containers reach the outside and the
    host, not each other.

    `warnings` holds, after `ensure`, what will keep containers from the outside.
    """

    name = "bridge"
    driver = "bridge"

    def __init__(
        self,
        *,
        bridge: str = DEFAULT_BRIDGE,
        bip: str | None = None,
        table: str | None = None,
        mtu: int | None = None,
        icc: bool = True,
        masquerade: bool = True,
        network_id: str | None = None,
    ) -> None:
        if not _INTERFACE.fullmatch(bridge) or len(bridge) >= IFNAMSIZ:
            raise InvalidArgument(f"invalid bridge name: {bridge!r}")
        if table and not _TABLE.fullmatch(table):
            raise InvalidArgument(f"invalid nftables table name: {table!r}")
        self.bridge = bridge
        self.table = table or (DEFAULT_TABLE if bridge == DEFAULT_BRIDGE else f"sampan-{bridge}")
        self.id = network_id or hashlib.sha256(f"sampan network {bridge}".encode()).hexdigest()
        self.icc = icc
        self.masquerade = masquerade
        self.warnings: list[str] = []
        address = ipam.parse_bridge_address(bip) if bip else None
        self._interface = BridgeInterface(bridge, address, mtu)
        self._pool: ipam.AddressPool[IPv4Address] | None = None
        self._attachments: dict[str, Attachment] = {}
        self._firewall = Firewall(table=self.table)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: RulesetWatch | None = None
        self._repair: asyncio.TimerHandle | None = None

    @property
    def subnet(self) -> str:
        """The subnet with its prefix length; known after `ensure`."""
        return str(self._ready().subnet)

    @property
    def gateway(self) -> str:
        """The bridge's own address, without a prefix length; empty before `ensure`."""
        return str(self._pool.gateway) if self._pool else ""

    def ensure(self) -> None:
        """Make what is missing of the bridge, its address, forwarding and the rules.

        Blocks for some milliseconds; to be called before the first `attach` and again at any
        time, such as after somebody else flushed the firewall.

        Raises:
            Conflict: the interface is not a bridge, is another engine's, or has another address
                than `bip` and containers on it.
            Unavailable: no subnet is free, or the kernel refuses: what, and its reason.
        """
        if self.bridge == DISABLED:
            return
        try:
            address = self._interface.ensure()
            self._use(address)
            _enable_forwarding()
            self.warnings = self._firewall.install(
                [
                    BridgeRules(
                        self.bridge,
                        (str(address.network),),
                        icc=self.icc,
                        masquerade=self.masquerade,
                    )
                ]
            )
        except (OSError, NftError) as error:
            reason = error.message if isinstance(error, NftError) else error.strerror or str(error)
            raise Unavailable(
                f"the bridge network {self.bridge} cannot be set up: {reason}",
                hint="an engine without a bridge network is started with --bridge none",
            ) from error

    def _use(self, address: IPv4Interface) -> None:
        """Hand out addresses of this subnet, but for those in use."""
        if self._pool is not None and self._pool.gateway == address.ip:
            return
        self._pool = ipam.AddressPool(address)
        for attachment in self._attachments.values():
            taken = _address_of(attachment)
            if taken in self._pool.subnet and taken != address.ip:
                self._pool.reserve(str(taken))

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put the rules back whenever somebody else took them, until `close`.

        A firewall that is reloaded flushes what it finds: without this, containers would lose the
        outside until the daemon's next start.
        """
        if self._watch is None and self.bridge != DISABLED:
            self._loop = loop
            self._watch = RulesetWatch()
            loop.add_reader(self._watch.fileno(), self._rules_changed)

    def attach(
        self, container_id: str, *, mac: str | None = None, address: str | None = None
    ) -> Attachment:
        """Reserve an address and describe the interface; see `Network.attach`.

        The MAC follows from the address unless given, as Docker's does: a neighbour that still
        has the address cached from a former container has the right MAC.
        """
        if container_id in self._attachments:
            raise Conflict(f"endpoint with name {container_id} already exists in network bridge")
        if mac is not None:
            mac = _checked_mac(mac)
        pool = self._ready()
        taken = pool.take() if address is None else pool.reserve(address)
        endpoint = VethEndpoint(
            host_name=f"veth{os.urandom(4).hex()}",
            bridge=self.bridge,
            bridge_index=self._interface.index,
            mac=mac or mac_of(taken.packed),
            mtu=self._interface.mtu,
            addresses=(f"{taken}/{pool.subnet.prefixlen}",),
            gateway=str(pool.gateway),
            isolated=not self.icc,
        )
        return self._keep(container_id, endpoint, None)

    def allocate(
        self, container_id: str, *, mac: str | None = None, address: str | None = None
    ) -> VethEndpoint:
        """The endpoint of `attach`: what the runtime needs of it."""
        endpoint = self.attach(container_id, mac=mac, address=address).endpoint
        assert endpoint is not None
        return endpoint

    def adopt(
        self,
        container_id: str,
        address: str,
        mac: str,
        *,
        endpoint_id: str | None = None,
        host_name: str = "",
    ) -> Attachment:
        """Take over a container that outlived the daemon, with the address it has.

        The address comes with or without a prefix length. One that is not of this subnet (the
        bridge was given another one since) is kept as it is.

        Raises:
            Conflict: another container has the address.
        """
        pool = self._ready()
        interface = IPv4Interface(address)
        text = str(interface.ip)
        if interface.ip in pool.subnet:
            pool.reserve(text)
        prefix = pool.subnet.prefixlen if "/" not in address else interface.network.prefixlen
        endpoint = VethEndpoint(
            host_name=host_name,
            bridge=self.bridge,
            bridge_index=self._interface.index,
            mac=mac,
            mtu=self._interface.mtu,
            addresses=(f"{text}/{prefix}",),
            gateway=str(pool.gateway),
        )
        return self._keep(container_id, endpoint, endpoint_id)

    def release(self, container_id: str) -> None:
        """Free the container's address; nothing happens if it has none."""
        attachment = self._attachments.pop(container_id, None)
        if attachment is not None and self._pool is not None:
            self._pool.release(_address_of(attachment))

    def attachment(self, container_id: str) -> Attachment | None:
        """The container's place, if it has one."""
        return self._attachments.get(container_id)

    def attachments(self) -> Collection[Attachment]:
        """All places in use."""
        return self._attachments.values()

    def describe(self) -> dict[str, Any]:
        """Driver, subnet and options, as Docker shows those of its default bridge."""
        prefix = "com.docker.network.bridge."
        return {
            "Driver": self.driver,
            "IPAM": {
                "Driver": "default",
                "Options": None,
                "Config": [{"Subnet": self.subnet, "Gateway": self.gateway}],
            },
            "Options": {
                f"{prefix}default_bridge": "true",
                f"{prefix}enable_icc": str(self.icc).lower(),
                f"{prefix}enable_ip_masquerade": str(self.masquerade).lower(),
                f"{prefix}host_binding_ipv4": "0.0.0.0",
                f"{prefix}name": self.bridge,
                "com.docker.network.driver.mtu": str(self._interface.mtu),
            },
        }

    def close(self) -> None:
        """Leave the network as it is and let go of it: what runs keeps its connections."""
        self._unwatch()
        self._firewall.close()
        self._interface.unclaim()

    def remove(self) -> None:
        """Take down the rules, and the bridge if it is of our making.

        IPv4 forwarding stays on: others may have come to rely on it.
        """
        if self.bridge == DISABLED:
            return
        self._unwatch()
        self._firewall.remove()
        self._interface.remove()
        self._attachments.clear()
        self._pool = None
        self.close()

    def _rules_changed(self) -> None:
        """A reload comes in several transactions: look when they are through."""
        assert self._watch is not None and self._loop is not None
        if self._watch.changed_by_others() and self._repair is None:
            self._repair = self._loop.call_later(_SETTLE_S, self._repair_rules)

    def _repair_rules(self) -> None:
        self._repair = None
        if self._pool is None or self._firewall.intact():
            return
        _log.warning("the rules of %s were taken away: putting them back", self.bridge)
        try:
            self.ensure()
        except SampanError as error:
            _log.error("the rules of %s cannot be put back: %s", self.bridge, error)

    def _unwatch(self) -> None:
        if self._watch is not None and self._loop is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None
        if self._repair is not None:
            self._repair.cancel()
            self._repair = None

    def _ready(self) -> ipam.AddressPool[IPv4Address]:
        if self.bridge == DISABLED:
            raise NotFound(
                "network bridge not found", hint="the engine was started with --bridge none"
            )
        if self._pool is None:
            raise Unavailable("the bridge network is not set up")
        return self._pool

    def _keep(
        self, container_id: str, endpoint: VethEndpoint, endpoint_id: str | None
    ) -> Attachment:
        attachment = Attachment(
            container_id=container_id,
            network_id=self.id,
            network_name=self.name,
            endpoint=endpoint,
            endpoint_id=endpoint_id,
        )
        self._attachments[container_id] = attachment
        return attachment


def _address_of(attachment: Attachment) -> IPv4Address:
    assert attachment.endpoint is not None
    return IPv4Interface(attachment.endpoint.addresses[0]).ip


def _checked_mac(mac: str) -> str:
    lowered = mac.lower().replace("-", ":")
    if not _MAC.fullmatch(lowered):
        raise InvalidArgument(f"invalid MAC address: {mac}")
    if int(lowered[:2], 16) & 1:
        raise InvalidArgument(f"invalid MAC address: {mac} is a multicast address")
    return lowered


def _enable_forwarding() -> None:
    with open(_IP_FORWARD, "r+", encoding="ascii") as setting:
        if setting.read().strip() == "0":
            setting.seek(0)
            setting.write("1")
