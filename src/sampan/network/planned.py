"""Networks of the user's own, of whatever driver: their subnets are plans, which say their gateways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sampan.network.addressed import AddressedNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.network.addressing import SubnetPlan


class PlannedNetwork(AddressedNetwork):
    """Addresses by plans, at most one a family; kinds may have subnets without a gateway."""

    def __init__(
        self, name: str, network_id: str, plans: Sequence[SubnetPlan], *, internal: bool
    ) -> None:
        super().__init__(name, network_id)
        self.plans = tuple(plans)
        self.internal = internal
        self._set_pools([plan.pool(has_gateway=self._has_gateway(plan)) for plan in self.plans])

    @property
    def gateway(self) -> str:
        """The IPv4 gateway, empty for none."""
        return self._gateway(ipv6=False)

    @property
    def gateway6(self) -> str:
        """The IPv6 gateway, empty for none."""
        return self._gateway(ipv6=True)

    def describe(self) -> dict[str, Any]:
        """The driver; what was asked for is the engine's to show."""
        return {"Driver": self.driver}

    def _has_gateway(self, plan: SubnetPlan) -> bool:
        return bool(plan.gateway)

    def _gateway(self, *, ipv6: bool) -> str:
        for plan in self.plans:
            if plan.ipv6 == ipv6 and self._has_gateway(plan):
                return plan.gateway
        return ""
