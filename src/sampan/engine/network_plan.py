"""From a request for a network to what is kept of it: subnets checked, chosen and completed.

Pure: what the machine and the other networks have is given. Messages are dockerd's.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import msgspec

from sampan.engine.leases import LABEL as LEASE
from sampan.engine.model import Model
from sampan.errors import Forbidden, InvalidArgument
from sampan.network import pools
from sampan.network.addressing import SubnetPlan, completed, plans_of
from sampan.network.pools import OVERLAP, Pool, overlapping
from sampan.network.user_bridge import check_known, parse_options
from sampan.state.networks import NetworkRecord, SubnetRecord

Subnet = IPv4Network | IPv6Network


class IpamConfig(Model):
    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class Ipam(Model):
    driver: str = ""
    config: list[IpamConfig] | None = None
    options: dict[str, str] | None = None


class ConfigReference(Model):
    network: str = ""


class NetworkCreate(Model):
    """The body of `POST /networks/create`."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool = msgspec.field(default=False, name="EnableIPv6")
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None

    @property
    def wants_ipv4(self) -> bool:
        return self.enable_ipv4 is not False

    def completed_by(self, record: NetworkRecord) -> NetworkCreate:
        """The request with what a configuration-only network says.

        Raises:
            Forbidden: the request says something of that itself.
        """
        own = self.ipam
        if self.config_only:
            raise Forbidden(
                "a configuration network cannot depend on another configuration network"
            )
        if self.options:
            raise Forbidden(
                "network driver options are not supported if the network depends on a "
                "configuration network"
            )
        own_labels = self.labels.keys() - {LEASE} if self.labels else ()
        if self.enable_ipv6 or own_labels or (own and (own.config or own.options)):
            raise Forbidden(
                "user specified configurations are not supported if the network depends "
                "on a configuration network"
            )
        return msgspec.structs.replace(
            self,
            options=dict(record.options),
            labels={**record.labels, **(self.labels or {})},
            internal=self.internal or record.internal,
            enable_ipv4=record.ipv4,
            enable_ipv6=record.ipv6,
            ipam=Ipam(
                driver=record.ipam_driver,
                options=record.ipam_options,
                config=[
                    IpamConfig(
                        subnet=each.subnet,
                        ip_range=each.ip_range,
                        gateway=each.gateway,
                        auxiliary_addresses=each.kept,
                    )
                    for each in record.subnets
                ],
            ),
        )


def planned(
    request: NetworkCreate,
    available: Sequence[Pool],
    networks: Sequence[Subnet],
    machine: Sequence[Subnet],
) -> NetworkRecord:
    """What is kept of a network. `networks` are the subnets of the others, `machine` those that the
    host itself uses: a subnet that the engine chooses overlaps neither, one that the user names may
    overlap the host's.

    Raises:
        InvalidArgument, Forbidden, Unavailable: dockerd's texts.
    """
    ipam = request.ipam or Ipam()
    if ipam.driver not in ("", "default", "null"):
        raise InvalidArgument(f"could not find the IPAM driver {ipam.driver}")
    driver = request.driver or "bridge"
    options = dict(request.options or {})
    if driver == "bridge":
        parse_options(options, internal=request.internal, ipv6=request.enable_ipv6)
        check_known(options, ipv6=request.enable_ipv6)
    plans = (
        [] if ipam.driver == "null" else plans_of([_document(each) for each in ipam.config or ()])
    )
    if not request.config_only:
        plans = _with_all_families(plans, request, available, [*networks, *machine])
        _check_count(plans, driver)
        _check_overlap(plans, networks)
        # A network without a wire or of the third layer has no gateway to go to.
        l3 = driver == "ipvlan" and options.get("ipvlan_mode", "l2") != "l2"
        plans = plans if l3 else [completed(plan) for plan in plans]
    return NetworkRecord(
        driver=driver,
        options=options,
        labels=dict(request.labels or {}),
        ipam_driver=ipam.driver or "default",
        ipam_options=ipam.options,
        subnets=[_record(plan) for plan in plans],
        ipv4=request.wants_ipv4,
        ipv6=request.enable_ipv6,
        internal=request.internal,
        attachable=request.attachable,
        config_only=request.config_only,
        config_from=request.config_from.network if request.config_from else "",
    )


def _with_all_families(
    plans: list[SubnetPlan],
    request: NetworkCreate,
    available: Sequence[Pool],
    taken: Sequence[Subnet],
) -> list[SubnetPlan]:
    """IPv4 first; a family that is wanted and not named gets a subnet from the pools. Those of a
    family that is not wanted are left out, as dockerd does."""
    found: list[SubnetPlan] = []
    for ipv6, wanted in ((False, request.wants_ipv4), (True, request.enable_ipv6)):
        named = [plan for plan in plans if plan.ipv6 == ipv6]
        if not wanted:
            continue
        if not named:
            chosen = pools.choose(available, 6 if ipv6 else 4, taken)
            named = [SubnetPlan(str(chosen), asked=False)]
        found += named
    return found


def _check_count(plans: Sequence[SubnetPlan], driver: str) -> None:
    for ipv6 in (False, True):
        if sum(plan.ipv6 == ipv6 for plan in plans) > 1:
            raise Forbidden(f"{driver} driver doesn't support multiple subnets")


def _check_overlap(plans: Sequence[SubnetPlan], networks: Sequence[Subnet]) -> None:
    for plan in plans:
        if overlapping(plan.network, networks):
            raise Forbidden(f"invalid pool request: {OVERLAP}")


def _document(config: IpamConfig) -> dict[str, Any]:
    return {
        "Subnet": config.subnet,
        "IPRange": config.ip_range,
        "Gateway": config.gateway,
        "AuxiliaryAddresses": config.auxiliary_addresses,
    }


def _record(plan: SubnetPlan) -> SubnetRecord:
    return SubnetRecord(
        subnet=plan.subnet,
        ip_range=plan.ip_range,
        gateway=plan.gateway,
        kept=dict(plan.kept),
        asked=plan.asked,
    )
