"""More ports than a Linux bridge has: further bridges, each joined to the first by a cable.

The kernel gives a bridge 1,023 ports (BR_PORT_BITS, net/bridge/br_private.h). A network with more
containers gets another bridge without an address, and a veth pair between the two; for the
containers it is one network. Nobody sees the further bridges but who lists the machine's interfaces.

The machine takes no part on them. It must not answer for the gateway there, as it would for each of its
addresses on each interface. And where the kernel shows bridged frames to the packet filter (br_netfilter), a
connection must not become known there: what is translated is decided when it is first seen, which has to be on the
network's first bridge. So rules of firewall and policies leave out what comes in by SEGMENTS.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from sampan.linux import interfaces, netlink
from sampan.network.loop import write_setting

if TYPE_CHECKING:
    from collections.abc import Container

    from sampan.network.machine import Machine

PORTS = 1000  # some are left for cables and for what the user plugs in
MANY_NEIGHBOURS = 256
PREFIX = "smpseg"  # of their names: nobody else's interfaces are called so
SEGMENTS = f"{PREFIX}*"  # all of them, as nft has it
_CABLE = "smpcab"
CABLES = f"{_CABLE}*"
_ALIAS = "sampan segment of "
_LIMITS = (("gc_thresh1", 8192), ("gc_thresh2", 32768), ("gc_thresh3", 65536))


class Segments:
    """Which bridge of a network the next port goes to.

    No I/O, but for every thousandth port.
    """

    def __init__(self, bridge: str) -> None:
        self.bridge = bridge
        self._names = [bridge]
        self._indexes = [0]
        self._counts = [0]
        self._ports: dict[str, int] = {}  # host's end → position in the lists
        self._mtu = 1500
        self._isolated = False

    def begin(self, index: int, *, mtu: int, isolated: bool) -> None:
        """The first bridge has just been made, and has this index."""
        self.forget()
        self._indexes[0] = index
        self._mtu, self._isolated = mtu, isolated

    def load(self, index: int, machine: Machine, *, mtu: int, isolated: bool) -> None:
        """Find what there is of the network; `index` is that of its first bridge."""
        self._mtu, self._isolated = mtu, isolated
        further = sorted(
            machine.by_alias.get(f"{_ALIAS}{self.bridge}", ()), key=lambda link: link.name
        )
        self._names = [self.bridge, *(link.name for link in further)]
        self._indexes = [index, *(link.index for link in further)]
        self._ports = {
            link.name: place
            for place, number in enumerate(self._indexes)
            for link in machine.ports.get(number, ())
        }
        self._counts = [0] * len(self._names)
        for place in self._ports.values():
            self._counts[place] += 1
        for place in range(1, len(self._names)):
            self._join(place, machine.by_name)

    def seat(self, port: str = "") -> tuple[str, str, int]:
        """The port, and name and index of its bridge: of one that there is, or a new one's.

        Raises:
            OSError: another bridge was needed and could not be made.
        """
        if port:
            place = self._ports.get(port, 0)
            return port, self._names[place], self._indexes[place]
        port = f"veth{os.urandom(4).hex()}"
        place = self._place(port)
        return port, self._names[place], self._indexes[place]

    def _place(self, port: str) -> int:
        free = (place for place, count in enumerate(self._counts) if count < PORTS)
        place = next(free, -1)
        if place < 0:
            place = self._grow()
        self._counts[place] += 1
        self._ports[port] = place
        if len(self._ports) == MANY_NEIGHBOURS:
            _room_for_neighbours()
        return place

    def vacate(self, port: str) -> None:
        """The port is no more."""
        place = self._ports.pop(port, None)
        if place is not None:
            self._counts[place] -= 1

    def ports(self) -> set[str]:
        """The names of all ports there are thought to be, cables among them."""
        return set(self._ports)

    def remove(self) -> None:
        """Delete the further bridges, and with them their cables."""
        for place in range(1, len(self._names)):
            netlink.delete_link(_cable(self._names[place])[0])
            netlink.delete_link(self._names[place])
        self.forget()

    def forget(self) -> None:
        """There is nothing of it any more."""
        del self._names[1:], self._indexes[1:], self._counts[1:]
        self._counts[0] = 0
        self._ports.clear()

    def _grow(self) -> int:
        place = len(self._names)
        name = f"{PREFIX}{os.urandom(4).hex()}"
        index = interfaces.create_bridge(
            name,
            mac=f"02:42:{os.urandom(4).hex(':')}",
            mtu=self._mtu,
            alias=f"{_ALIAS}{self.bridge}",
        )
        self._names.append(name)
        self._indexes.append(index)
        self._counts.append(0)
        try:
            self._join(place, ())
        except OSError:
            del self._names[place:], self._indexes[place:], self._counts[place:]
            netlink.delete_link(name)
            raise
        return place

    def _join(self, place: int, there: Container[str]) -> None:
        """The cable between the first bridge and another.

        Where ports are isolated its end at the first bridge is too: what comes from the other
        segment reaches the bridge itself, and no container here.
        """
        _keep_aloof(self._names[place])
        near, far = _cable(self._names[place])
        if near not in there:
            ends = self._indexes[0], self._indexes[place]
            interfaces.create_cable(near, far, ends, mtu=self._mtu)
            self._ports[near], self._ports[far] = 0, place
            self._counts[0] += 1
            self._counts[place] += 1
        interfaces.join_bridge(near, self._indexes[0], isolated=self._isolated)
        interfaces.join_bridge(far, self._indexes[place])


def _cable(bridge: str) -> tuple[str, str]:
    """The names of the two ends."""
    number = bridge.removeprefix(PREFIX)
    return f"{_CABLE}{number}n", f"{_CABLE}{number}f"


def _keep_aloof(bridge: str) -> None:
    """The machine itself says nothing on it."""
    write_setting(f"ipv4/conf/{bridge}/arp_ignore", "8")
    write_setting(f"ipv4/conf/{bridge}/rp_filter", "1")  # no source is reached by way of it
    write_setting(f"ipv6/conf/{bridge}/disable_ipv6", "1")


def _room_for_neighbours() -> None:
    """Containers that all know each other fill the kernel's table, which all namespaces share."""
    for family in ("ipv4", "ipv6"):
        for name, wanted in _LIMITS:
            path = f"/proc/sys/net/{family}/neigh/default/{name}"
            with contextlib.suppress(OSError), open(path, "r+", encoding="ascii") as setting:
                if int(setting.read()) < wanted:
                    setting.seek(0)
                    setting.write(str(wanted))
