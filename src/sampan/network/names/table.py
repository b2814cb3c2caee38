"""Which names a container finds, and where they lead: plain values, no I/O.

A container sees the networks that it is in, in the order of its interfaces. The rules are libnetwork's
(sandbox.go, ResolveName): for `a.b.c` the name `a.b.c` is looked for in all of them, then `a.b` in the
network `c`, then `a` in the network `b.c`; a link, which is a name that one container has for another,
comes first and hides what others call so.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Place:
    """A container in a network: its names there, the first of them its own; packed addresses, perhaps empty."""

    __slots__ = ("address", "address6", "names")

    def __init__(self, names: Iterable[str], address: bytes, address6: bytes) -> None:
        self.names = tuple(dict.fromkeys(name.lower() for name in names))
        self.address = address
        self.address6 = address6


class NetworkNames:
    """All that is found in one network."""

    __slots__ = ("_by_address", "_by_name", "_turn", "name", "places")

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[str, Place] = {}
        self._by_name: dict[str, dict[str, Place]] = {}
        self._by_address: dict[bytes, str] = {}
        self._turn = 0

    def put(self, container_id: str, place: Place) -> None:
        """Add a container, or replace what was known of it."""
        self.drop(container_id)
        self.places[container_id] = place
        for name in place.names:
            self._by_name.setdefault(name, {})[container_id] = place
        for address in (place.address, place.address6):
            if address and place.names:
                self._by_address[address] = place.names[0]

    def drop(self, container_id: str) -> None:
        """Forget a container; nothing happens if it is not known."""
        place = self.places.pop(container_id, None)
        if place is None:
            return
        for name in place.names:
            behind = self._by_name[name]
            del behind[container_id]
            if not behind:
                del self._by_name[name]
        for address in (place.address, place.address6):
            # Another container may have the address by now.
            if place.names and self._by_address.get(address) == place.names[0]:
                del self._by_address[address]

    def find(self, name: str) -> list[Place]:
        """The containers behind a name, each time another one first."""
        behind = self._by_name.get(name)
        if not behind:
            return []
        found = list(behind.values())
        if len(found) > 1:
            self._turn = (self._turn + 1) & 0xFFFF
            start = self._turn % len(found)
            found = found[start:] + found[:start]
        return found

    def name_of(self, address: bytes) -> str:
        """The name of the container with this address, as libnetwork answers; empty for none."""
        name = self._by_address.get(address)
        return f"{name}.{self.name}" if name else ""


class View:
    """What one container sees: its networks in order, and its links (other name → name) in each."""

    __slots__ = ("links", "networks")

    def __init__(self) -> None:
        self.networks: list[NetworkNames] = []
        self.links: list[dict[str, str]] = []

    def find(self, name: str) -> list[Place]:
        """The containers that this one finds by a name in lower case; none: it is nobody's name here."""
        for part, network_name in _readings(name):
            found = self._find(part, network_name)
            if found:
                return found
        return []

    def _find(self, name: str, network_name: str) -> list[Place]:
        searched = [
            (network, links)
            for network, links in zip(self.networks, self.links, strict=True)
            if not network_name or network.name.lower() == network_name
        ]
        for network, links in searched:
            if name in links and (found := network.find(links[name])):
                return found
        for network, links in searched:
            if name not in links and (found := network.find(name)):
                return found
        return []

    def name_of(self, address: bytes) -> str:
        """The name of the container with this address."""
        for network in self.networks:
            if name := network.name_of(address):
                return name
        return ""


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """(name, network's name or empty) in the order of their trial."""
    yield name, ""
    at = name.rfind(".")
    while at > 0:
        yield name[:at], name[at + 1 :]
        at = name.rfind(".", 0, at)
