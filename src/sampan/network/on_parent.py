"""The drivers macvlan and ipvlan: containers' interfaces hang on one of the machine's.

They are neighbours of whatever the parent's wire has, with addresses of that wire's subnet; packets
do not come by the host, so neither the firewall nor published ports have a part in them. Without a
parent the network is internal: it hangs on a dummy interface of our making. A parent `eth0.20` that
does not exist is made: VLAN 20 of `eth0`.
Sources: Documentation/networking/ipvlan.rst, linux/if_link.h.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, NotFound, Unavailable, Unsupported
from sampan.linux import interfaces, netlink
from sampan.linux.netlink import VethEndpoint
from sampan.network.planned import PlannedNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.network.addressing import SubnetPlan
    from sampan.network.machine import Machine

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_OURS = "sampan parent of "


class OnParent(PlannedNetwork):
    """A network of the driver `macvlan` or `ipvlan`.

    Raises:
        InvalidArgument: a mode or flag that there is not.
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
    ) -> None:
        self.driver = driver
        self.parent = options.get("parent", "")
        super().__init__(name, network_id, plans, internal=internal or not self.parent)
        self.interface_prefix = "eth"
        self.mtu = 1500
        self._index = 0
        modes = MACVLAN_MODES if driver == "macvlan" else IPVLAN_MODES
        self.mode = _choice(options, f"{driver}_mode", modes, "bridge", "l2")
        self.flags = 0
        if driver == "ipvlan":
            self.flags = _choice(options, "ipvlan_flag", IPVLAN_FLAGS, "bridge")

    def ensure(self, machine: Machine) -> bool:
        """Find the parent, or make it. Blocks for milliseconds.

        Raises:
            NotFound: the parent does not exist.
            Unsupported: the kernel has no such interfaces.
        """
        name = self.parent or f"dm-{self.id[:12]}"
        link = machine.by_name.get(name)
        made = link is None
        if link is None:
            index = self._make_parent(name, machine)
        else:
            index, self.mtu = link.index, link.mtu
        self._index, self.parent_name = index, name
        try:
            interfaces.probe_on_parent(self.driver, index)
        except OSError as error:
            self.remove()
            if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
                raise _unsupported(self.driver) from error
            raise Unavailable(
                f"{name} cannot be the parent of a {self.driver}: {error.strerror}"
            ) from error
        return made

    def remove(self) -> None:
        """Delete the parent if it is of our making."""
        name = self.parent or f"dm-{self.id[:12]}"
        link = next((link for link in interfaces.links() if link.name == name), None)
        if link is not None and link.alias == f"{_OURS}{self.id}":
            netlink.delete_link(name)
        self._index = 0

    def ports(self) -> set[str]:
        """None: nothing of it is on the host."""
        return set()

    def _make_parent(self, name: str, machine: Machine) -> int:
        alias = f"{_OURS}{self.id}"
        try:
            if not self.parent:
                return interfaces.create_link(name, "dummy", alias=alias)
            upper, dot, tag = self.parent.rpartition(".")
            if dot and tag.isascii() and tag.isdecimal() and upper in machine.by_name:
                self.mtu = machine.by_name[upper].mtu
                return interfaces.create_vlan(
                    name, machine.by_name[upper].index, int(tag), alias=alias
                )
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
                raise _unsupported("dummy" if not self.parent else "vlan") from error
            raise Unavailable(f"interface {name} cannot be made: {error.strerror}") from error
        raise NotFound(f"parent interface {self.parent} not found")

    def _endpoint(self, mac: str, addresses: Sequence[str], *, host_name: str) -> VethEndpoint:
        routed_by_device = self.driver == "ipvlan" and self.mode != IPVLAN_MODES["l2"]
        gateways = not (self.internal or routed_by_device)
        return VethEndpoint(
            host_name="",
            bridge=self.parent_name,
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


def _choice(options: Mapping[str, str], name: str, words: Mapping[str, int], *defaults: str) -> int:
    text = options.get(name) or next(word for word in defaults if word in words)
    if text not in words:
        raise InvalidArgument(f"requested {name.replace('_', ' ')} '{text}' is not valid")
    return words[text]


def _unsupported(kind: str) -> Unsupported:
    return Unsupported(
        f"this kernel has no {kind} interfaces",
        hint=f"try modprobe {kind}, or a kernel built with them",
    )
