"""The host's interfaces at one moment, asked of the kernel once for many networks."""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network

from sampan.linux import interfaces

DEFAULT_MTU = 1500


class Machine:
    """Links, addresses and routes as they were when each was first asked for."""

    @cached_property
    def links(self) -> list[interfaces.Link]:
        return interfaces.links()

    @cached_property
    def by_name(self) -> dict[str, interfaces.Link]:
        return {link.name: link for link in self.links}

    @cached_property
    def addresses(self) -> dict[int, set[str]]:
        """Addresses with their prefix lengths, by the interface's index."""
        found: dict[int, set[str]] = {}
        for index, text in interfaces.addresses():
            found.setdefault(index, set()).add(text)
        return found

    @cached_property
    def routes(self) -> list[tuple[str, str, int]]:
        return interfaces.routes()

    @cached_property
    def taken(self) -> list[IPv4Network | IPv6Network]:
        """Every subnet that an address or a route of the machine is in."""
        texts = [destination for destination, _, _ in self.routes]
        texts += [text for group in self.addresses.values() for text in group]
        return [ip_network(text, strict=False) for text in texts]

    @property
    def mtu(self) -> int:
        """That of the interface with the IPv4 default route, and not more than 1500."""
        mtus = {link.index: link.mtu for link in self.links}
        for destination, _, index in self.routes:
            if destination == "0.0.0.0/0":
                return min(DEFAULT_MTU, mtus.get(index, DEFAULT_MTU))
        return DEFAULT_MTU
