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
import re
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument, NotFound, SampanError, Unavailable
from sampan.linux import interfaces
from sampan.linux.netlink import IFNAMSIZ, VethEndpoint
from sampan.linux.nftables import NftError
from sampan.linux.nftwatch import RulesetWatch
from sampan.network import ipam
from sampan.network.addressed import AddressedNetwork
from sampan.network.firewall import Firewall
from sampan.network.interface import BridgeInterface
from sampan.network.rules import BridgeRules
from sampan.network.segments import Segments

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from sampan.network.driver import Attachment

DEFAULT_BRIDGE = "sampan0"
DEFAULT_TABLE = "sampan"
DISABLED = "none"  # dockerd's word for --bridge

_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SETTLE_S = 0.2
_log = logging.getLogger(__name__)
_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


class BridgeNetwork(AddressedNetwork):
    """The network `bridge` of one engine.

    `bridge` names the interface, which no two engines may share, or is `none` for an engine that
    has no bridge network; `bip` is its address
    (`172.30.0.1/16`), chosen so as to overlap nothing when not given; `table` names the nftables
    table, by default after the bridge; `mtu` is by default the smaller of 1500 and that of the
    interface with the default route; without `icc` containers reach the outside and the
    host, not each other.

    `warnings` holds, after `ensure`, what will keep containers from the outside.
    """

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
        firewall: Firewall | None = None,
    ) -> None:
        if not INTERFACE.fullmatch(bridge) or len(bridge) >= IFNAMSIZ:
            raise InvalidArgument(f"invalid bridge name: {bridge!r}")
        if table and not _TABLE.fullmatch(table):
            raise InvalidArgument(f"invalid nftables table name: {table!r}")
        self.bridge = bridge
        self.table = table or (DEFAULT_TABLE if bridge == DEFAULT_BRIDGE else f"sampan-{bridge}")
        identity = network_id or hashlib.sha256(f"sampan network {bridge}".encode()).hexdigest()
        super().__init__("bridge", identity)
        self.icc = icc
        self.masquerade = masquerade
        self.warnings: list[str] = []
        address = ipam.parse_bridge_address(bip) if bip else None
        self._interface = BridgeInterface(bridge, address, mtu)
        self._segments = Segments(bridge)
        self.firewall = firewall or Firewall(table=self.table)
        self._others: Callable[[], Iterable[BridgeRules]] = tuple
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
        return str(self._pools[0].gateway) if self._pools else ""

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
            enable_forwarding()
            self._segments.load(
                self._interface.index,
                interfaces.links(),
                mtu=self._interface.mtu,
                isolated=not self.icc,
            )
            self.warnings = self.firewall.install([self.rules(), *self._others()])
        except (OSError, NftError) as error:
            reason = error.message if isinstance(error, NftError) else error.strerror or str(error)
            raise Unavailable(
                f"the bridge network {self.bridge} cannot be set up: {reason}",
                hint="an engine without a bridge network is started with --bridge none",
            ) from error

    def rules(self) -> BridgeRules:
        """What it asks of the firewall."""
        return BridgeRules(self.bridge, (self.subnet,), icc=self.icc, masquerade=self.masquerade)

    def beside(self, others: Callable[[], Iterable[BridgeRules]]) -> None:
        """The other bridges whose rules are put in place with its own."""
        self._others = others

    def _use(self, address: IPv4Interface) -> None:
        """Hand out addresses of this subnet, but for those in use."""
        if self._pools and self._pools[0].gateway == address.ip:
            return
        self._set_pools([ipam.AddressPool(address)])

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put the rules back whenever somebody else took them, until `close`.

        A firewall that is reloaded flushes what it finds: without this, containers would lose the
        outside until the daemon's next start.
        """
        if self._watch is None and self.bridge != DISABLED:
            self._loop = loop
            self._watch = RulesetWatch()
            loop.add_reader(self._watch.fileno(), self._rules_changed)

    def allocate(
        self, container_id: str, *, mac: str | None = None, address: str | None = None
    ) -> VethEndpoint:
        """The endpoint of `attach`: what the runtime needs of it."""
        endpoint = self.attach(container_id, mac=mac, address=address).endpoint
        assert endpoint is not None
        return endpoint

    def _check(self) -> None:
        self._ready()

    def _endpoint(self, mac: str, addresses: Sequence[str], *, host_name: str) -> VethEndpoint:
        port, bridge, index = self._segments.seat(host_name)
        return VethEndpoint(
            host_name=port,
            bridge=bridge,
            bridge_index=index,
            mac=mac,
            mtu=self._interface.mtu,
            addresses=addresses,
            gateway=self.gateway,
            isolated=not self.icc,
        )

    def _left(self, attachment: Attachment) -> None:
        self._segments.vacate(attachment.host_port)

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
        self.firewall.close()
        self._interface.unclaim()

    def remove(self) -> None:
        """Take down the rules, and the bridge if it is of our making.

        IPv4 forwarding stays on: others may have come to rely on it.
        """
        if self.bridge == DISABLED:
            return
        self._unwatch()
        self.firewall.remove()
        self._interface.remove()
        self._segments.remove()
        self._forget()
        self.close()

    def _rules_changed(self) -> None:
        """A reload comes in several transactions: look when they are through."""
        assert self._watch is not None and self._loop is not None
        if self._watch.changed_by_others() and self._repair is None:
            self._repair = self._loop.call_later(_SETTLE_S, self._repair_rules)

    def _repair_rules(self) -> None:
        self._repair = None
        if not self._pools or self.firewall.intact():
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
        if not self._pools:
            raise Unavailable("the bridge network is not set up")
        return self._pools[0]


def enable_forwarding() -> None:
    with open(_IP_FORWARD, "r+", encoding="ascii") as setting:
        if setting.read().strip() == "0":
            setting.seek(0)
            setting.write("1")
