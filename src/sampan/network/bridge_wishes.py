"""What the user asks of the default bridge network: dockerd's options, checked. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument
from sampan.network import ipam
from sampan.network.addressing import SubnetPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    Interface = IPv4Interface | IPv6Interface

_GATEWAY_KEYS = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}  # dockerd's


@dataclass(frozen=True, slots=True)
class BridgeWishes:
    """Texts and numbers as dockerd's options have them; empty and 0: nothing is asked for.

    `bip` and `bip6` are the bridge's own addresses with their prefix lengths, `fixed_cidr` and
    `fixed_cidr6` what containers get addresses of, `gateway` and `gateway6` where their default
    routes lead instead of to the bridge. Without `ipv6` those of IPv6 mean nothing. `host_binding` is
    only shown.

    Raises:
        InvalidArgument: a value that cannot be meant, or that another one rules out.
    """

    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr6: str = ""
    gateway: str = ""
    gateway6: str = ""
    ipv6: bool = False
    mtu: int = 0
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""

    def __post_init__(self) -> None:
        for name, text, kind in (
            ("bip6", self.bip6, IPv6Interface),
            ("fixed-cidr", self.fixed_cidr, IPv4Network),
            ("fixed-cidr-v6", self.fixed_cidr6, IPv6Network),
            ("default-gateway", self.gateway, IPv4Address),
            ("default-gateway-v6", self.gateway6, IPv6Address),
        ):
            _check(name, text, kind)
        for name, text in (("bip6", self.bip6),):
            if text and "/" not in text:
                raise InvalidArgument(f"invalid value for --{name}: {text} has no prefix length")
        if self.mtu and not 68 <= self.mtu <= 65535:
            raise InvalidArgument(f"invalid MTU {self.mtu}: it must be from 68 to 65535")
        for version in (4, 6):
            asked = self.address_of(version)
            if asked is not None:
                self.plan(asked)

    def address_of(self, version: int) -> Interface | None:
        """The bridge's address of the family, as far as the user says it.

        Without `bip` the network is as large as `fixed_cidr`, with its first address for the bridge.
        """
        if version == 4 and self.bip:
            return ipam.parse_bridge_address(self.bip)
        if version == 6 and self.bip6:
            return ip_interface(self.bip6)
        within = self.fixed_cidr if version == 4 else self.fixed_cidr6
        if not within:
            return None
        subnet = ip_network(within)
        return ip_interface(f"{subnet[1]}/{subnet.prefixlen}")

    def admits(self, address: Interface) -> bool:
        """Whether a bridge that has this address may keep it."""
        bip = self.bip if address.version == 4 else self.bip6
        within = self.fixed_cidr if address.version == 4 else self.fixed_cidr6
        if bip:
            return str(address) == str(ip_interface(bip))
        return not within or _within(ip_network(within), address.network)

    def plan(self, address: Interface) -> SubnetPlan:
        """What is handed out by a bridge with this address.

        Raises:
            InvalidArgument: the range or the gateway is not of its subnet.
        """
        version, subnet = address.version, address.network
        within = self.fixed_cidr if version == 4 else self.fixed_cidr6
        gateway = self.gateway if version == 4 else self.gateway6
        if within and not _within(ip_network(within), subnet):
            raise InvalidArgument(
                f"fixed-cidr{_suffix(version)} {within} is not within the bridge's subnet {subnet}"
            )
        if gateway and ip_address(gateway) not in subnet:
            raise InvalidArgument(
                f"default-gateway{_suffix(version)} {gateway} is not within the bridge's subnet {subnet}"
            )
        kept = ((_GATEWAY_KEYS[version], gateway),) if gateway else ()
        return SubnetPlan(
            str(subnet),
            ip_range="" if not within or ip_network(within) == subnet else within,
            gateway=str(address.ip),
            kept=kept,
        )


def _check(name: str, text: str, kind: Callable[[str], Any]) -> None:
    try:
        if text:
            kind(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid value for --{name}: {error}") from None


def _within(inner: Any, outer: Any) -> bool:
    return bool(inner.version == outer.version and inner.subnet_of(outer))


def _suffix(version: int) -> str:
    return "" if version == 4 else "-v6"
