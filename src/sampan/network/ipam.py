"""Addresses: which subnet a bridge gets, and which address of it a container gets.

Plain values; nothing here asks the kernel.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, NetmaskValueError
from typing import TYPE_CHECKING

from sampan.errors import Conflict, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_POOL_16 = "172.30.0.0/16", "172.29.0.0/16", "172.28.0.0/16", "172.27.0.0/16", "172.26.0.0/16"
_POOL_20 = IPv4Network("192.168.0.0/16"), IPv4Network("10.192.0.0/12")


def candidates() -> Iterator[IPv4Network]:
    """The subnets to choose from, best first.

    172.17 to 172.25 are left to dockerd, which counts up from there: an engine of either kind
    that starts second finds room without the two ever meeting.
    """
    for subnet in _POOL_16:
        yield IPv4Network(subnet)
    for block in _POOL_20:
        yield from block.subnets(new_prefix=20)


def choose_subnet(taken: Iterable[str]) -> IPv4Network:
    """The first candidate that overlaps none of the `taken` networks (text, any prefix).

    A default route overlaps everything and IPv6 nothing: both are passed over.

    Raises:
        Unavailable: all overlap; the user must name one.
    """
    networks = [
        IPv4Network(text, strict=False)
        for text in taken
        if ":" not in text and not text.endswith("/0")
    ]
    for subnet in candidates():
        if not any(subnet.overlaps(other) for other in networks):
            return subnet
    raise Unavailable(
        "could not find an available, non-overlapping IPv4 address pool for the bridge network",
        hint="give the bridge an address with --bip, such as --bip 10.88.0.1/16",
    )


def parse_bridge_address(text: str) -> IPv4Interface:
    """`--bip`: the bridge's own address with its prefix length, such as `172.30.0.1/16`.

    Raises:
        InvalidArgument: no IPv4 address with a prefix length, the subnet's own or broadcast
            address, or a subnet without room for a container.
    """
    if "/" not in text:
        raise InvalidArgument(f"invalid bridge address {text}: the prefix length is missing")
    try:
        address = IPv4Interface(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise InvalidArgument(f"invalid bridge address {text}: not an IPv4 address") from None
    subnet = address.network
    if subnet.prefixlen > 30:
        raise InvalidArgument(f"invalid bridge address {text}: no room for a container")
    if address.ip in (subnet.network_address, subnet.broadcast_address):
        raise InvalidArgument(f"invalid bridge address {text}: not a host's address")
    return address


class AddressPool:
    """The addresses of one subnet, handed out in turn.

    A released address is the last to be given again: a dead container's namespace is taken down
    by the kernel some 40 ms after its last process, and answers for its address until then.
    """

    def __init__(self, gateway: IPv4Interface) -> None:
        self.subnet = gateway.network
        self.gateway = gateway.ip
        self._first = int(self.subnet.network_address) + 1
        self._last = int(self.subnet.broadcast_address) - 1
        self._taken = {int(gateway.ip)}
        self._next = self._first

    def take(self) -> IPv4Address:
        """The next free address.

        Raises:
            Unavailable: there is none.
        """
        if len(self._taken) > self._last - self._first:
            raise Unavailable("no available IPv4 addresses on this network's address pools")
        while self._next in self._taken:
            self._advance()
        number = self._next
        self._taken.add(number)
        self._advance()
        return IPv4Address(number)

    def reserve(self, text: str) -> IPv4Address:
        """That very address.

        Raises:
            InvalidArgument: not an IPv4 address, or not a host's address of this subnet.
            Conflict: it is taken.
        """
        try:
            address = IPv4Address(text)
        except AddressValueError:
            raise InvalidArgument(f"invalid IPv4 address: {text}") from None
        if not self._first <= int(address) <= self._last:
            raise InvalidArgument(f"no configured subnet contains IP address {text}")
        if int(address) in self._taken:
            raise Conflict(f"Address already in use: {text}")
        self._taken.add(int(address))
        return address

    def release(self, address: IPv4Address) -> None:
        """Free the address; the gateway's stays."""
        if address != self.gateway:
            self._taken.discard(int(address))

    def _advance(self) -> None:
        self._next = self._first if self._next >= self._last else self._next + 1
