"""A network of the user's own with the driver bridge.

    network = UserBridge(name, id, plans, options, firewall=…)
    network.ensure(machine)         # the bridge and its addresses; `rules` go to the firewall
    network.remove()

Options are docker's, `com.docker.network.*`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sampan.errors import Conflict, InvalidArgument, Unavailable
from sampan.linux import interfaces, netlink
from sampan.linux.netlink import IFNAMSIZ, VethEndpoint
from sampan.network.addressed import mac_of
from sampan.network.bridge import INTERFACE
from sampan.network.ip_forward import enable_forwarding, enable_forwarding6
from sampan.network.planned import PlannedNetwork
from sampan.network.rules import BridgeRules
from sampan.network.segments import Segments

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sampan.network.addressing import SubnetPlan
    from sampan.network.driver import Attachment
    from sampan.network.machine import Machine

ALIAS = "sampan network "  # with owner and ID: a bridge that we made and may delete
_BRIDGE = "com.docker.network.bridge."
_KNOWN = frozenset(
    {
        f"{_BRIDGE}name",
        f"{_BRIDGE}enable_icc",
        f"{_BRIDGE}enable_ip_masquerade",
        f"{_BRIDGE}gateway_mode_ipv4",
        f"{_BRIDGE}gateway_mode_ipv6",
        f"{_BRIDGE}host_binding_ipv4",
        f"{_BRIDGE}inhibit_ipv4",
        f"{_BRIDGE}trusted_host_interfaces",
        "com.docker.network.container_iface_prefix",
        "com.docker.network.driver.mtu",
        "com.docker.network.host_ipv4",
        "com.docker.network.host_ipv6",
    }
)
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False", ""})
_MODES = ("", "nat", "nat-unprotected", "routed", "isolated")
_SMALLEST_MTU, _LARGEST_MTU = 68, 65535
_SMALLEST_MTU6 = 1280


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """What the options say; `mtu` 0: as the machine's way out; `name` empty: made of the ID."""

    name: str = ""
    icc: bool = True
    masquerade: bool = True
    mtu: int = 0
    host_binding: str = ""
    source: str = ""
    source6: str = ""
    gateway_mode: str = ""
    gateway_mode6: str = ""
    interface_prefix: str = ""
    no_address: bool = False
    trusted: tuple[str, ...] = ()


def parse_options(options: Mapping[str, str], *, internal: bool, ipv6: bool) -> BridgeOptions:
    """Check the options of a bridge network; those that are not docker's mean nothing here.

    Raises:
        InvalidArgument: a value that cannot be meant.
    """
    name = options.get(f"{_BRIDGE}name", "")
    if name and (not INTERFACE.fullmatch(name) or len(name) >= IFNAMSIZ):
        raise InvalidArgument(f"invalid bridge name: {name!r}")
    modes = [options.get(f"{_BRIDGE}gateway_mode_ipv{family}", "") for family in (4, 6)]
    for mode in modes:
        if mode not in _MODES:
            raise InvalidArgument(f"unknown gateway mode {mode}")
        if mode == "isolated" and not internal:
            raise InvalidArgument(
                "gateway mode 'isolated' can only be used for an internal network"
            )
    return BridgeOptions(
        name=name,
        icc=_flag(options, f"{_BRIDGE}enable_icc", default=True),
        masquerade=_flag(options, f"{_BRIDGE}enable_ip_masquerade", default=True),
        mtu=_mtu(options, ipv6=ipv6),
        host_binding=_address(options, f"{_BRIDGE}host_binding_ipv4"),
        source=_address(options, "com.docker.network.host_ipv4"),
        source6=_address(options, "com.docker.network.host_ipv6"),
        gateway_mode=modes[0],
        gateway_mode6=modes[1],
        interface_prefix=options.get("com.docker.network.container_iface_prefix", ""),
        no_address=_flag(options, f"{_BRIDGE}inhibit_ipv4", default=False),
        trusted=_interfaces(options, f"{_BRIDGE}trusted_host_interfaces"),
    )


def check_known(options: Mapping[str, str], *, ipv6: bool) -> None:
    """Refuse options of docker's that mean nothing here: a network made without them is another one.

    Raises:
        InvalidArgument: the first that is not known.
    """
    for name, value in options.items():
        if not name.startswith("com.docker.network.") or name in _KNOWN:
            continue
        harmless = {
            f"{_BRIDGE}default_bridge": not _flag(options, name, default=False),
            "com.docker.network.enable_ipv6": _flag(options, name, default=False) == ipv6,
        }.get(name, False)
        if not harmless:
            raise InvalidArgument(f"option {name}={value} is not supported by the bridge driver")


class UserBridge(PlannedNetwork):
    """A bridge network; see the module. Labels are the engine's business; `owner` is its ID, by which
    it finds bridges that it made and then died."""

    driver = "bridge"

    def __init__(
        self,
        name: str,
        network_id: str,
        plans: Sequence[SubnetPlan],
        options: BridgeOptions,
        *,
        internal: bool = False,
        owner: str = "",
    ) -> None:
        self.options = options
        super().__init__(name, network_id, plans, internal=internal)
        self._alias = f"{ALIAS}{owner} {network_id}"
        self.bridge = options.name or f"br-{network_id[:12]}"
        self.mtu = options.mtu or 1500
        self._ours = True
        self._segments = Segments(self.bridge)
        self._index = 0

    @property
    def interface_prefix(self) -> str:
        """What the names of its interfaces in containers begin with."""
        return self.options.interface_prefix or "eth"

    def rules(self) -> BridgeRules:
        """What it asks of the firewall."""
        options = self.options
        modes = options.gateway_mode, options.gateway_mode6
        nat, nat6 = (
            options.masquerade and mode in ("", "nat", "nat-unprotected") for mode in modes
        )
        open4, open6 = (mode == "nat-unprotected" for mode in modes)
        return BridgeRules(
            self.bridge,
            tuple(plan.subnet for plan in self.plans),
            icc=options.icc,
            internal=self.internal,
            masquerade=nat,
            masquerade6=nat6,
            source=options.source if nat else "",
            source6=options.source6 if nat6 else "",
            open=open4,
            open6=open6,
            trusted=options.trusted,
        )

    def ensure(self, machine: Machine) -> bool:
        """Make what is missing of the bridge; True if the bridge itself was. Blocks for milliseconds.

        Raises:
            Conflict: the interface is not a bridge.
            Unavailable: the kernel refuses: what, and its reason.
        """
        try:
            return self._ensure(machine)
        except OSError as error:
            raise Unavailable(
                f"failed to set up the bridge {self.bridge} of network {self.name}: "
                f"{error.strerror or error}"
            ) from error

    def remove(self) -> None:
        """Delete the bridge if it is of our making. Blocks for some ten milliseconds."""
        self._segments.remove()
        if self._ours:
            netlink.delete_link(self.bridge)
        self._index = 0

    def ports(self) -> set[str]:
        """The interfaces that are thought to be on it."""
        return self._segments.ports()

    def _ensure(self, machine: Machine) -> bool:
        self.mtu = self.options.mtu or machine.mtu
        link = machine.find(self.bridge)
        wanted = self._addresses()
        made = link is None
        if link is None:
            self._index = interfaces.create_bridge(
                self.bridge,
                mac=self._mac(),
                mtu=self.mtu,
                alias=self._alias,
                addresses=wanted,
            )
        else:
            self._use(link, wanted, machine)
        isolated = not self.options.icc
        if made and not machine.listed:
            self._segments.begin(self._index, mtu=self.mtu, isolated=isolated)
        else:
            self._segments.load(self._index, machine, mtu=self.mtu, isolated=isolated)
        if not self.internal:
            enable_forwarding()
        if any(plan.ipv6 for plan in self.plans):
            enable_forwarding6()
        return made

    def _use(self, link: interfaces.Link, wanted: Sequence[str], machine: Machine) -> None:
        """A bridge that is there: ours of a former daemon, or the user's own."""
        if link.kind != "bridge":
            raise Conflict(f"interface {self.bridge} exists and is not a bridge")
        self._ours = link.alias == self._alias
        self._index = link.index
        for text in wanted:
            if text not in machine.addresses.get(link.index, ()):
                interfaces.add_address(self.bridge, text)
        if not link.up:
            interfaces.set_up(self.bridge)

    def _addresses(self) -> list[str]:
        """What the bridge itself has."""
        return [
            str(plan.interface)
            for plan in self.plans
            if self._has_gateway(plan) and (plan.ipv6 or not self.options.no_address)
        ]

    def _has_gateway(self, plan: SubnetPlan) -> bool:
        mode = self.options.gateway_mode6 if plan.ipv6 else self.options.gateway_mode
        return mode != "isolated"

    def _mac(self) -> str:
        packed = next((ip_address(p.gateway).packed for p in self.plans if not p.ipv6), None)
        return mac_of(packed or os.urandom(4))

    def _endpoint(self, mac: str, addresses: Sequence[str], *, host_name: str) -> VethEndpoint:
        port, bridge, index = self._segments.seat(host_name)
        return VethEndpoint(
            host_name=port,
            bridge=bridge,
            bridge_index=index,
            mac=mac,
            mtu=self.mtu,
            addresses=addresses,
            gateway="" if self.internal else self.gateway,
            gateway6="" if self.internal else self.gateway6,
            isolated=not self.options.icc,
        )

    def _left(self, attachment: Attachment) -> None:
        self._segments.vacate(attachment.host_port)


def stray_bridges(machine: Machine, owner: str, known: Collection[str]) -> list[str]:
    """The names of bridges that this engine made for networks that are none."""
    prefix = f"{ALIAS}{owner} "
    return [
        link.name
        for link in machine.links
        if link.alias.startswith(prefix) and link.alias.removeprefix(prefix) not in known
    ]


def _flag(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = options.get(name)
    if text is None:
        return default
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument(f'failed to parse {name} value: "{text}" is neither true nor false')


def _mtu(options: Mapping[str, str], *, ipv6: bool) -> int:
    name = "com.docker.network.driver.mtu"
    text = options.get(name, "")
    if not text:
        return 0
    smallest = _SMALLEST_MTU6 if ipv6 else _SMALLEST_MTU
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise InvalidArgument(f'failed to parse {name} value: "{text}" is no number')
    number = int(text)
    if number and not smallest <= number <= _LARGEST_MTU:
        raise InvalidArgument(f"invalid MTU {text}: it must be from {smallest} to {_LARGEST_MTU}")
    return number


def _interfaces(options: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Names with colons between them, as docker has it."""
    names = [text.strip() for text in options.get(name, "").split(":") if text.strip()]
    for text in names:
        if not INTERFACE.fullmatch(text) or len(text) >= IFNAMSIZ:
            raise InvalidArgument(f"invalid {name}: {text!r} is no interface's name")
    return tuple(dict.fromkeys(names))


def _address(options: Mapping[str, str], name: str) -> str:
    text = options.get(name, "")
    if not text:
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        raise InvalidArgument(f'failed to parse {name} value: "{text}" is no IP address') from None
