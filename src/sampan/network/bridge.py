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

import fcntl
import hashlib
import os
import re
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any

from sampan.errors import Conflict, InvalidArgument, Unavailable
from sampan.linux import interfaces, netlink
from sampan.linux.netlink import IFNAMSIZ, VethEndpoint
from sampan.network import ipam
from sampan.network.driver import Attachment
from sampan.network.firewall import Firewall

if TYPE_CHECKING:
    from collections.abc import Collection

DEFAULT_BRIDGE = "sampan0"
DEFAULT_TABLE = "sampan"
DEFAULT_MTU = 1500
ALIAS = "sampan bridge network"  # marks a bridge that we made and may delete

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


class BridgeNetwork:
    """The network `bridge` of one engine.

    `bridge` names the interface, which no two engines may share; `bip` is its address
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
        self.bridge = bridge
        self.table = table or (DEFAULT_TABLE if bridge == DEFAULT_BRIDGE else f"sampan-{bridge}")
        self.id = network_id or hashlib.sha256(f"sampan network {bridge}".encode()).hexdigest()
        self.icc = icc
        self.masquerade = masquerade
        self.warnings: list[str] = []
        self._bip = ipam.parse_bridge_address(bip) if bip else None
        self._wanted_mtu = mtu
        self.mtu = mtu or DEFAULT_MTU
        self._index = 0
        self._pool: ipam.AddressPool | None = None
        self._attachments: dict[str, Attachment] = {}
        self._firewall = Firewall(table=self.table, bridge=bridge)
        self._claim: int | None = None

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
            Unavailable: no subnet is free.
        """
        address = self._ensure_bridge()
        self._claim_bridge()
        if self._pool is None:
            self._pool = ipam.AddressPool(address)
        _enable_forwarding()
        self.warnings = self._firewall.install(
            subnet=str(address.network), icc=self.icc, masquerade=self.masquerade
        )

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
            bridge_index=self._index,
            mac=mac or _mac_of(taken.packed),
            mtu=self.mtu,
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
            bridge_index=self._index,
            mac=mac,
            mtu=self.mtu,
            addresses=(f"{text}/{prefix}",),
            gateway=str(pool.gateway),
        )
        return self._keep(container_id, endpoint, endpoint_id)

    def release(self, container_id: str) -> None:
        """Free the container's address; nothing happens if it has none."""
        attachment = self._attachments.pop(container_id, None)
        if attachment is None or attachment.endpoint is None:
            return
        interface = IPv4Interface(attachment.endpoint.addresses[0])
        if interface.ip in self._ready().subnet:
            self._ready().release(interface.ip)

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
                "com.docker.network.driver.mtu": str(self.mtu),
            },
        }

    def close(self) -> None:
        """Leave the network as it is and let go of it: what runs keeps its connections."""
        self._firewall.close()
        self._unclaim()

    def remove(self) -> None:
        """Take down the rules, and the bridge if it is of our making.

        IPv4 forwarding stays on: others may have come to rely on it.
        """
        self._firewall.remove()
        link = _link_named(self.bridge)
        if link is not None and link.alias == ALIAS:
            netlink.delete_link(self.bridge)
        self._attachments.clear()
        self._pool = None
        self._index = 0
        self.close()

    def _ready(self) -> ipam.AddressPool:
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

    def _ensure_bridge(self) -> IPv4Interface:
        """The bridge's address, after making the bridge, giving it one or bringing it up."""
        links = interfaces.links()
        link = next((link for link in links if link.name == self.bridge), None)
        if self._wanted_mtu is None:
            self.mtu = min(DEFAULT_MTU, _default_route_mtu(links))
        if link is None:
            return self._create_bridge()
        if link.kind != "bridge":
            raise Conflict(f"interface {self.bridge} exists and is not a bridge")
        address = _address_of(link.index)
        if self._bip and address != self._bip:
            return self._replace_bridge(link, address, links)
        if address is None:
            address = self._pick_address()
            interfaces.add_address(self.bridge, str(address))
        if not link.up:
            interfaces.set_up(self.bridge)
        self._index = link.index
        return address

    def _create_bridge(self) -> IPv4Interface:
        address = self._pick_address()
        self._index = interfaces.create_bridge(
            self.bridge,
            mac=_mac_of(address.ip.packed),
            address=str(address),
            mtu=self.mtu,
            alias=ALIAS,
        )
        return address

    def _replace_bridge(
        self, link: interfaces.Link, address: IPv4Interface | None, links: list[interfaces.Link]
    ) -> IPv4Interface:
        """Another address than the bridge has was asked for."""
        if address is None:
            assert self._bip is not None
            interfaces.add_address(self.bridge, str(self._bip))
            interfaces.set_up(self.bridge)
            self._index = link.index
            return self._bip
        if link.alias != ALIAS or any(port.master == link.index for port in links):
            raise Conflict(
                f"bridge {self.bridge} has the address {address}, not {self._bip}",
                hint="stop the containers on it first, or choose another bridge with --bridge",
            )
        netlink.delete_link(self.bridge)
        self._pool = None
        return self._create_bridge()

    def _pick_address(self) -> IPv4Interface:
        """`bip`, the subnet in use so far, or the first subnet that nobody uses."""
        if self._bip:
            return self._bip
        if self._pool is not None:
            return IPv4Interface(f"{self._pool.gateway}/{self._pool.subnet.prefixlen}")
        taken = [destination for destination, _, _ in interfaces.routes()]
        taken += [address for _, address in interfaces.addresses()]
        subnet = ipam.choose_subnet(taken)
        return IPv4Interface(f"{subnet.network_address + 1}/{subnet.prefixlen}")

    def _claim_bridge(self) -> None:
        """Hold a lock on the bridge itself, so that two engines never hand out its addresses.

        The lock is on a file of the interface that only root may open and that goes when the
        interface goes, so it can neither be taken by others nor left behind.
        """
        if self._claim is not None:
            return
        try:
            claim = os.open(
                f"/sys/class/net/{self.bridge}/bridge/flush", os.O_WRONLY | os.O_CLOEXEC
            )
        except FileNotFoundError:
            return  # a /sys that shows another network namespace
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
            raise Conflict(
                f"bridge {self.bridge} is in use by another engine",
                hint="choose another bridge with --bridge",
            ) from None
        self._claim = claim

    def _unclaim(self) -> None:
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None


def _enable_forwarding() -> None:
    with open(_IP_FORWARD, "r+", encoding="ascii") as setting:
        if setting.read().strip() == "0":
            setting.seek(0)
            setting.write("1")


def _link_named(name: str) -> interfaces.Link | None:
    return next((link for link in interfaces.links() if link.name == name), None)


def _address_of(index: int) -> IPv4Interface | None:
    """The interface's first IPv4 address."""
    for owner, address in interfaces.addresses():
        if owner == index and ":" not in address:
            return IPv4Interface(address)
    return None


def _default_route_mtu(links: list[interfaces.Link]) -> int:
    """MTU of the interface that the IPv4 default route leaves by; 1500 if there is none."""
    mtus = {link.index: link.mtu for link in links}
    for destination, _, index in interfaces.routes():
        if destination == "0.0.0.0/0":
            return mtus.get(index, DEFAULT_MTU)
    return DEFAULT_MTU


def _checked_mac(mac: str) -> str:
    lowered = mac.lower().replace("-", ":")
    if not _MAC.fullmatch(lowered):
        raise InvalidArgument(f"invalid MAC address: {mac}")
    if int(lowered[:2], 16) & 1:
        raise InvalidArgument(f"invalid MAC address: {mac} is a multicast address")
    return lowered


def _mac_of(packed: bytes) -> str:
    """A locally administered MAC made of an IPv4 address, in Docker's form."""
    return (b"\x02\x42" + packed).hex(":")
