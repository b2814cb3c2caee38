"""Addresses: which subnet the default bridge gets, and which address of a subnet a container gets.

Plain values; nothing here asks the kernel.
"""

from __future__ import annotations

from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    NetmaskValueError,
    ip_address,
)
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from sampan.errors import Conflict, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_POOL_16 = "172.30.0.0/16", "172.29.0.0/16", "172.28.0.0/16", "172.27.0.0/16", "172.26.0.0/16"
_POOL_20 = IPv4Network("192.168.0.0/16"), IPv4Network("10.192.0.0/12")

Address = TypeVar("Address", IPv4Address, IPv6Address)


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


class AddressPool(Generic[Address]):
    """The addresses of one subnet of either family, handed out in turn.

    Those of `within` (docker's ip-range) if given; a certain one may be asked for from all of the
    subnet. The `gateway` (None: there is none) and the `kept` (docker's aux-address) are never given.

    A released address is the last to be given again: a dead container's namespace is taken down
    by the kernel some 40 ms after its last process, and answers for its address until then.
    """

    def __init__(
        self,
        gateway: IPv4Interface | IPv6Interface,
        *,
        within: IPv4Network | IPv6Network | None = None,
        kept: Iterable[str] = (),
        has_gateway: bool = True,
    ) -> None:
        self.subnet = gateway.network
        self.gateway: Address = cast("Address", gateway.ip)
        self._version = self.subnet.version
        self._lowest, self._highest = bounds(self.subnet)
        self._first, self._last = self._lowest, self._highest
        if within is not None:
            self._first = max(self._first, int(within.network_address))
            self._last = min(self._last, int(within.broadcast_address))
        self._kept = {int(ip_address(text)) for text in kept}
        if has_gateway:
            self._kept.add(int(gateway.ip))
        self._taken = set(self._kept)
        self._in_range = sum(map(self._is_within, self._taken))
        self._next = self._first

    @property
    def taken(self) -> int:
        """How many are in use, the gateway's and those that are kept among them."""
        return len(self._taken)

    @property
    def free(self) -> int:
        """How many are left to be handed out."""
        return self._last - self._first + 1 - self._in_range

    def take(self) -> Address:
        """The next free address.

        Raises:
            Unavailable: there is none.
        """
        if self.free <= 0:
            raise Unavailable(
                f"no available IPv{self._version} addresses on this network's address pools"
            )
        while self._next in self._taken:
            self._advance()
        number = self._next
        self._mark(number)
        self._advance()
        return self._address(number)

    def reserve(self, text: str) -> Address:
        """That very address.

        Raises:
            InvalidArgument: not an address of the family, or not a host's address of this subnet.
            Conflict: it is taken.
        """
        kind = IPv4Address if self._version == 4 else IPv6Address
        try:
            number = int(kind(text))
        except AddressValueError:
            raise InvalidArgument(f"invalid IPv{self._version} address: {text}") from None
        if not self._lowest <= number <= self._highest:
            raise InvalidArgument(f"no configured subnet contains IP address {text}")
        if number in self._taken:
            raise Conflict(f"Address already in use: {text}")
        self._mark(number)
        return self._address(number)

    def release(self, address: Address) -> None:
        """Free the address; the gateway's and those that are kept stay."""
        number = int(address)
        if number in self._taken and number not in self._kept:
            self._taken.discard(number)
            self._in_range -= self._is_within(number)

    def _mark(self, number: int) -> None:
        self._taken.add(number)
        self._in_range += self._is_within(number)

    def _is_within(self, number: int) -> bool:
        return self._first <= number <= self._last

    def _address(self, number: int) -> Address:
        kind = IPv4Address if self._version == 4 else IPv6Address
        return cast("Address", kind(number))

    def _advance(self) -> None:
        self._next = self._first if self._next >= self._last else self._next + 1


def bounds(subnet: IPv4Network | IPv6Network) -> tuple[int, int]:
    """The first and last address that a host may have.

    Of IPv6 the subnet's own address is the routers' anycast address (RFC 4291 2.6.1), and there is
    no broadcast.
    """
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.prefixlen >= subnet.max_prefixlen - 1:
        return first, last  # RFC 3021, RFC 6164
    return first + 1, last - 1 if subnet.version == 4 else last
