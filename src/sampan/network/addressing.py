"""A network's subnets as they were asked for, checked and completed: plain values.

Messages are dockerd's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.network.ipam import AddressPool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


@dataclass(frozen=True, slots=True)
class SubnetPlan:
    """One subnet of a network, in text; an empty gateway is to be chosen.

    `asked` is whether the user named the subnet: only then may containers ask for addresses.
    """

    subnet: str
    ip_range: str = ""
    gateway: str = ""
    kept: tuple[tuple[str, str], ...] = ()
    asked: bool = True

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network(self.subnet)

    @property
    def ipv6(self) -> bool:
        return ":" in self.subnet

    @property
    def interface(self) -> IPv4Interface | IPv6Interface:
        """The gateway with the subnet's prefix length."""
        return ip_interface(f"{self.gateway}/{self.network.prefixlen}")

    def pool(self, *, has_gateway: bool = True) -> AddressPool[Any]:
        """The addresses that are handed out."""
        subnet = self.network
        nobody = ip_interface(f"{subnet.network_address}/{subnet.prefixlen}")
        return AddressPool(
            self.interface if self.gateway else nobody,
            within=ip_network(self.ip_range) if self.ip_range else None,
            kept=[address for _, address in self.kept],
            has_gateway=has_gateway and bool(self.gateway),
        )

    def document(self) -> dict[str, Any]:
        """Docker's `IPAMConfig`, without what is empty."""
        found: dict[str, Any] = {"Subnet": self.subnet}
        if self.ip_range:
            found["IPRange"] = self.ip_range
        if self.gateway:
            found["Gateway"] = self.gateway
        if self.kept:
            found["AuxiliaryAddresses"] = dict(self.kept)
        return found


def completed(plan: SubnetPlan) -> SubnetPlan:
    """With a gateway: the first address of the range that is not kept for something else."""
    if plan.gateway:
        return plan
    subnet = plan.network
    first = ip_interface(f"{subnet.network_address}/{subnet.prefixlen}")
    pool: AddressPool[Any] = AddressPool(
        first,
        within=ip_network(plan.ip_range) if plan.ip_range else None,
        kept=[address for _, address in plan.kept],
        has_gateway=False,
    )
    return replace(plan, gateway=str(pool.take()))


def plans_of(configs: Sequence[Mapping[str, Any]]) -> list[SubnetPlan]:
    """What `IPAM.Config` of a request means; entries without a subnet are left to be chosen.

    Raises:
        InvalidArgument: something is no subnet, or lies outside of it; all that is wrong, in
            dockerd's words.
    """
    problems: list[str] = []
    plans = [plan for config in configs if (plan := _plan_of(config, problems)) is not None]
    if problems:
        raise InvalidArgument("invalid network config:\n" + "\n".join(problems))
    return plans


def _plan_of(config: Mapping[str, Any], problems: list[str]) -> SubnetPlan | None:
    text = config.get("Subnet") or ""
    if not text:
        for name in ("IPRange", "Gateway"):
            if config.get(name):
                problems.append(f"{name} {config[name]}: no subnet is given for it")
        return None
    try:
        subnet = ip_network(text, strict=False)
    except ValueError:
        problems.append(f"invalid subnet {text}: invalid CIDR block notation")
        return None
    if "/" not in text:
        problems.append(f"invalid subnet {text}: invalid CIDR block notation")
        return None
    if str(subnet) != str(ip_interface(text)) and subnet.network_address != ip_interface(text).ip:
        problems.append(f"invalid subnet {text}: it should be {subnet}")
    if subnet.prefixlen > subnet.max_prefixlen - 2:
        problems.append(f"invalid subnet {text}: there is no room for a container")
    ip_range = _range_of(config.get("IPRange") or "", subnet, problems)
    gateway = _inside("gateway", config.get("Gateway") or "", subnet, problems)
    kept = tuple(
        (name, _inside("auxiliary address", address, subnet, problems))
        for name, address in (config.get("AuxiliaryAddresses") or {}).items()
    )
    return SubnetPlan(str(subnet), ip_range, gateway, kept)


def _range_of(text: str, subnet: IPv4Network | IPv6Network, problems: list[str]) -> str:
    if not text:
        return ""
    try:
        within = ip_network(text, strict=False)
    except ValueError:
        problems.append(f"invalid ip-range {text}: invalid CIDR block notation")
        return ""
    if within.version != subnet.version:
        problems.append(f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block")
    elif not (
        subnet.network_address <= within.network_address  # type: ignore[operator]
        and within.broadcast_address <= subnet.broadcast_address  # type: ignore[operator]
    ):
        problems.append(
            f"invalid ip-range {text}: CIDR block must be a subset of the parent subnet {subnet}"
        )
    return str(within)


def _inside(what: str, text: str, subnet: IPv4Network | IPv6Network, problems: list[str]) -> str:
    """The address in its usual spelling, if it lies in the subnet."""
    if not text:
        return ""
    try:
        address = ip_address(text.partition("/")[0])
    except ValueError:
        problems.append(f"invalid {what} {text}: invalid address")
        return ""
    if address.version != subnet.version:
        problems.append(f"invalid {what} {text}: parent subnet is an IPv{subnet.version} block")
    elif address not in subnet:
        problems.append(
            f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address"
        )
    return str(address)
