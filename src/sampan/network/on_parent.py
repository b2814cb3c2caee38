"""The drivers macvlan and ipvlan: containers' interfaces hang on one of the machine's.

They are neighbours of whatever the parent's wire has, with addresses of that wire's subnet; packets
do not come by the host, so neither the firewall nor published ports have a part in them. Without a
parent the network is internal: it hangs on a dummy interface of our making.
Sources: Documentation/networking/ipvlan.rst, linux/if_link.h; messages: libnetwork's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.errors import Forbidden, InvalidArgument, Unavailable
from sampan.linux import netlink
from sampan.linux.netlink import VethEndpoint
from sampan.network import parents
from sampan.network.planned import PlannedNetwork

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sampan.network.addressing import SubnetPlan
    from sampan.network.driver import Attachment
    from sampan.network.machine import Machine

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


class OnParent(PlannedNetwork):
    """A network of the driver `macvlan` or `ipvlan`; `owner` is the engine's name for itself.

    Raises:
        InvalidArgument: a mode or flag that there is not, or the loopback as parent.
    """

    bridge = ""

    def __init__(
        self,
        driver: str,
        name: str,
        network_id: str,
        plans: Sequence[SubnetPlan],
        options: Mapping[str, str],
        *,
        internal: bool = False,
        owner: str = "",
    ) -> None:
        asked = options.get("parent", "")
        self.driver = driver
        super().__init__(name, network_id, plans, internal=internal or not asked)
        self.parent = asked or parents.dummy_name(network_id)
        self.interface_prefix = "eth"
        self.mtu = 1500
        self._owner = owner
        self._index = 0
        if asked == "lo":
            raise InvalidArgument(f"loopback interface is not a valid {driver} parent link")
        if driver == "macvlan":
            self.mode = _choice(options, "macvlan mode", MACVLAN_MODES, "bridge", " mode")
            self.flags = 0
        else:
            self.mode = _choice(options, "ipvlan mode", IPVLAN_MODES, "l2", " mode")
            self.flags = _choice(options, "ipvlan flag", IPVLAN_FLAGS, "bridge", "")

    def check_beside(self, others: Iterable[OnParent]) -> None:
        """Whether it can share its parent with these networks.

        An ipvlan's mode is that of all on its parent, and a passthru macvlan has the parent for itself.

        Raises:
            Forbidden: no.
        """
        for other in self._sharing(others):
            if "ipvlan" in (self.driver, other.driver):
                raise Forbidden(
                    f"network {parents.dummy_name(other.id)} is already using parent interface "
                    f"{self.parent}"
                )
            if self._alone:
                raise Forbidden(
                    f"cannot use mode passthru, macvlan network {other.id} is already using parent "
                    f"interface {self.parent}"
                )
            if other._alone:
                raise Forbidden(
                    f"macvlan network {other.id} is already using parent interface {self.parent} "
                    "in mode passthru"
                )

    def ensure(self, machine: Machine) -> bool:
        """Find the parent, or make it. Blocks for milliseconds.

        Raises:
            InvalidArgument, NotFound: the parent does not exist, and is no VLAN that can be made.
            Unsupported: the kernel has no such interfaces.
            Unavailable: the parent cannot have them.
        """
        link = machine.by_name.get(self.parent)
        if link is not None:
            self._index, self.mtu = link.index, link.mtu
            self._probe()
            return False
        self._index = parents.make(self.parent, machine, parents.alias(self._owner, self.id))
        upper = machine.by_name.get(self.parent.partition(".")[0])
        self.mtu = upper.mtu if upper else self.mtu
        try:
            self._probe()
        except BaseException:
            self.remove()
            raise
        return True

    def remove(self, others: Iterable[OnParent] = ()) -> None:
        """Delete the parent if it is of our making; one that others share is theirs from now on."""
        heir = next((other.id for other in self._sharing(others)), "")
        parents.take_away(self.parent, self._owner, self.id, heir)
        self._index = 0

    def ports(self) -> set[str]:
        """None: nothing of it is on the host."""
        return set()

    def attach(
        self,
        container_id: str,
        *,
        mac: str | None = None,
        address: str | None = None,
        address6: str | None = None,
    ) -> Attachment:
        """See `Network.attach`. The parent may have been replaced by another of its name since."""
        try:
            self._index = netlink.index_of(self.parent)
        except OSError as error:
            raise Unavailable(
                f"the requested parent interface {self.parent} was not found on the host"
            ) from error
        return super().attach(container_id, mac=mac, address=address, address6=address6)

    @property
    def _alone(self) -> bool:
        return self.driver == "macvlan" and self.mode == MACVLAN_MODES["passthru"]

    def _sharing(self, others: Iterable[OnParent]) -> list[OnParent]:
        return [other for other in others if other is not self and other.parent == self.parent]

    def _probe(self) -> None:
        """A passthru macvlan is not tried: the parent may have its one already."""
        if not self._alone:
            parents.probe(self.driver, self._index, self.parent, self.mode, self.flags)

    def _endpoint(self, mac: str, addresses: Sequence[str], *, host_name: str) -> VethEndpoint:
        routed_by_device = self.driver == "ipvlan" and self.mode != IPVLAN_MODES["l2"]
        gateways = not (self.internal or routed_by_device)
        return VethEndpoint(
            host_name="",
            bridge=self.parent,
            bridge_index=self._index,
            mac="" if self.driver == "ipvlan" else mac,
            mtu=self.mtu,
            addresses=addresses,
            gateway=self.gateway if gateways else "",
            gateway6=self.gateway6 if gateways else "",
            kind=self.driver,
            mode=self.mode,
            kind_flags=self.flags,
            device_routes=routed_by_device and not self.internal,
        )


def _choice(
    options: Mapping[str, str], what: str, words: Mapping[str, int], default: str, kind: str
) -> int:
    """What the option `what` (with an underscore) says; libnetwork words the default's kind twice."""
    text = options.get(what.replace(" ", "_")) or default
    if text not in words:
        driver = what.partition(" ")[0]
        raise InvalidArgument(
            f"requested {what} '{text}' is not valid, '{default}'{kind} is the {driver} driver default"
        )
    return words[text]
