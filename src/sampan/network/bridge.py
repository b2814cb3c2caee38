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
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument, NotFound, SampanError, Unavailable
from sampan.linux.netlink import IFNAMSIZ, VethEndpoint
from sampan.linux.nftables import NftError
from sampan.linux.nftwatch import RulesetWatch
from sampan.network.bridge_wishes import BridgeWishes
from sampan.network.firewall import Firewall
from sampan.network.interface import BridgeInterface
from sampan.network.ip_forward import enable_forwarding, enable_forwarding6
from sampan.network.machine import Machine
from sampan.network.planned import PlannedNetwork
from sampan.network.pools import unique_local_pool
from sampan.network.rules import BridgeRules
from sampan.network.segments import Segments

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from sampan.network.driver import Attachment
    from sampan.network.pools import Pool

DEFAULT_BRIDGE = "sampan0"
DEFAULT_TABLE = "sampan"
DISABLED = "none"  # dockerd's word for --bridge

_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SETTLE_S = 0.2
_log = logging.getLogger(__name__)


class BridgeNetwork(PlannedNetwork):
    """The network `bridge` of one engine.

    `bridge` names the interface, which no two engines may share, or is `none` for an engine that
    has no bridge network; `wishes` say its addresses and more, which are else chosen so as to overlap
    nothing: those that it had before (`former`), or out of `available` if given; `table` names the
    nftables table, by default after the bridge. `seed` is what the engine's own IPv6 block is made of.

    `warnings` holds, after `ensure`, what will keep containers from the outside.
    """

    driver = "bridge"

    def __init__(
        self,
        *,
        bridge: str = DEFAULT_BRIDGE,
        wishes: BridgeWishes | None = None,
        table: str | None = None,
        available: Sequence[Pool] = (),
        former: Sequence[str] = (),
        seed: str = "",
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
        super().__init__("bridge", identity, (), internal=False)
        self._wishes = wishes or BridgeWishes()
        self.warnings: list[str] = []
        pools = [*available, unique_local_pool(seed or bridge)]
        self._interface = BridgeInterface(bridge, self._wishes, available=pools, former=former)
        self._segments = Segments(bridge)
        self.firewall = firewall or Firewall(table=self.table)
        self._others: Callable[[], Iterable[BridgeRules]] = tuple
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: RulesetWatch | None = None
        self._repair: asyncio.TimerHandle | None = None

    @property
    def subnet(self) -> str:
        """The subnet with its prefix length; known after `ensure`."""
        self._ready()
        return self.plans[0].subnet

    @property
    def addresses(self) -> list[str]:
        """The bridge's own addresses with their prefix lengths; known after `ensure`."""
        return [str(address) for address in self._interface.addresses]

    def ensure(self) -> None:
        """Make what is missing of the bridge, its address, forwarding and the rules.

        Blocks for some milliseconds; to be called before the first `attach` and again at any
        time, such as after somebody else flushed the firewall.

        Raises:
            Conflict: the interface is not a bridge, is another engine's, or has another address
                than `bip` and containers on it.
            Unavailable: no subnet is free, or the kernel refuses: what, and its reason.
        """
        try:
            if self.bridge != DISABLED:
                self._ensure()
            rules = list(self._rules())
            if rules:
                self.warnings = self.firewall.install(rules)
        except (OSError, NftError) as error:
            reason = error.message if isinstance(error, NftError) else error.strerror or str(error)
            raise Unavailable(
                f"the bridge network {self.bridge} cannot be set up: {reason}",
                hint="an engine without a bridge network is started with --bridge none",
            ) from error

    def rules(self) -> BridgeRules:
        """What it asks of the firewall."""
        self._ready()
        masquerade = self._wishes.masquerade
        return BridgeRules(
            self.bridge,
            tuple(plan.subnet for plan in self.plans),
            icc=self._wishes.icc,
            masquerade=masquerade,
            masquerade6=masquerade,
        )

    @property
    def icc(self) -> bool:
        """Whether its containers reach each other."""
        return self._wishes.icc

    def answer_for_neighbours(self) -> None:
        """Where containers are kept apart on the bridge, let it speak for all of them (RFC 3069): what
        one sends to another goes by the host, and so by the rules."""
        for name, value in (("proxy_arp_pvlan", "1"), ("send_redirects", "0")):
            path = f"/proc/sys/net/ipv4/conf/{self.bridge}/{name}"
            with open(path, "w", encoding="ascii") as setting:
                setting.write(value)

    def beside(self, others: Callable[[], Iterable[BridgeRules]]) -> None:
        """The other bridges whose rules are put in place with its own."""
        self._others = others

    def _rules(self) -> Iterable[BridgeRules]:
        if self.bridge != DISABLED:
            yield self.rules()
        yield from self._others()

    def _ensure(self) -> None:
        self._interface.ensure()
        plans = tuple(map(self._wishes.plan, self._interface.addresses))
        if plans != self.plans or not self._pools:
            self.plans = plans
            self._set_pools([plan.pool() for plan in plans])
        enable_forwarding()
        if self._wishes.ipv6:
            enable_forwarding6()
        self._segments.load(
            self._interface.index,
            Machine(),
            mtu=self._interface.mtu,
            isolated=not self._wishes.icc,
        )

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put the rules back whenever somebody else took them, until `close`.

        A firewall that is reloaded flushes what it finds: without this, containers would lose the
        outside until the daemon's next start.
        """
        if self._watch is None:
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
            gateway=self._wishes.gateway or self.gateway,
            gateway6=(self._wishes.gateway6 or self.gateway6) if self.gateway6 else "",
            isolated=not self._wishes.icc,
        )

    def _left(self, attachment: Attachment) -> None:
        self._segments.vacate(attachment.host_port)

    def describe(self) -> dict[str, Any]:
        """Driver, subnets and options, as Docker shows those of its default bridge."""
        prefix = "com.docker.network.bridge."
        self._ready()
        return {
            "Driver": self.driver,
            "EnableIPv6": self._wishes.ipv6,
            "IPAM": {
                "Driver": "default",
                "Options": None,
                "Config": [plan.document() for plan in self.plans],
            },
            "Options": {
                f"{prefix}default_bridge": "true",
                f"{prefix}enable_icc": str(self._wishes.icc).lower(),
                f"{prefix}enable_ip_masquerade": str(self._wishes.masquerade).lower(),
                f"{prefix}host_binding_ipv4": self._wishes.host_binding or "0.0.0.0",
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
        self._unwatch()
        self.firewall.remove()
        if self.bridge != DISABLED:
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
        if not self.firewall.installed or self.firewall.intact():
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

    def _ready(self) -> None:
        if self.bridge == DISABLED:
            raise NotFound(
                "network bridge not found", hint="the engine was started with --bridge none"
            )
        if not self._pools:
            raise Unavailable("the bridge network is not set up")
