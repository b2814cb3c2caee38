"""The host's interfaces at one moment, asked of the kernel once for many networks."""

from __future__ import annotations

import contextlib
from functools import cached_property, lru_cache
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

    @property
    def listed(self) -> bool:
        """Whether all interfaces have been asked for."""
        return "links" in self.__dict__

    @cached_property
    def ports(self) -> dict[int, list[interfaces.Link]]:
        """The ports of bridges, by the bridge's index."""
        found: dict[int, list[interfaces.Link]] = {}
        for link in self.links:
            if link.master:
                found.setdefault(link.master, []).append(link)
        return found

    @cached_property
    def by_alias(self) -> dict[str, list[interfaces.Link]]:
        found: dict[str, list[interfaces.Link]] = {}
        for link in self.links:
            if link.alias:
                found.setdefault(link.alias, []).append(link)
        return found

    def find(self, name: str) -> interfaces.Link | None:
        """The interface of that name. For one that there is not, not all have to be asked for."""
        if not self.listed and not interfaces.is_there(name):
            return None
        return self.by_name.get(name)

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
        texts = {destination for destination, _, _ in self.routes}
        texts.update(text for group in self.addresses.values() for text in group)
        return list(map(_network, texts))

    @cached_property
    def mtu(self) -> int:
        """That of the interface with the IPv4 default route, and not more than 1500."""
        for destination, _, index in self.routes:
            if destination == "0.0.0.0/0":
                with contextlib.suppress(OSError):  # it has just gone
                    return min(DEFAULT_MTU, interfaces.mtu_of(index))
        return DEFAULT_MTU


@lru_cache(maxsize=8192)
def _network(text: str) -> IPv4Network | IPv6Network:
    """Of an address its network. With thousands of networks most texts are those of the last time."""
    return ip_network(text, strict=False)
