"""Where networks that name no subnet get theirs from: small pieces of large blocks.

dockerd's pools hold some thirty networks, each with room for 65,000 containers. Here a network gets
room for 253, and there is room for 4,096 networks before the second block.
"""

from __future__ import annotations

import bisect
import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Subnet = IPv4Network | IPv6Network

EXHAUSTED = "all predefined address pools have been fully subnetted"
OVERLAP = "Pool overlaps with other one on this address space"


@dataclass(frozen=True, slots=True)
class Pool:
    """A block and the prefix length of the pieces that are cut from it (`default-address-pools`)."""

    base: IPv4Network | IPv6Network
    size: int


DEFAULT_POOLS = (
    Pool(IPv4Network("10.208.0.0/12"), 24),
    Pool(IPv4Network("10.224.0.0/12"), 24),
    Pool(IPv4Network("192.168.0.0/16"), 24),
)


def parse_pool(base: str, size: int) -> Pool:
    """One entry of `default-address-pools`.

    Raises:
        InvalidArgument: the base is no subnet, or the size does not fit into it.
    """
    try:
        network = ip_network(base)
    except ValueError:
        raise InvalidArgument(f"invalid base pool {base!r}: not a subnet") from None
    if not network.prefixlen <= size <= network.max_prefixlen - 2:
        raise InvalidArgument(
            f"invalid pool size {size} of {base}: it must be from {network.prefixlen} to "
            f"{network.max_prefixlen - 2}"
        )
    return Pool(network, size)


def unique_local_pool(seed: str) -> Pool:
    """The engine's own IPv6 block, a /48 by RFC 4193 made of `seed`, in pieces of /64."""
    bits = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:5], "big")
    return Pool(IPv6Network(((0xFD << 120) | (bits << 80), 48)), 64)


def choose(pools: Sequence[Pool], version: int, taken: Iterable[Subnet]) -> Subnet:
    """The first piece of the family that overlaps none of `taken`; default routes are passed over.

    Raises:
        Unavailable: there is none left; dockerd's text.
    """
    starts, ends = _merged(
        (int(subnet.network_address), int(subnet.broadcast_address))
        for subnet in taken
        if subnet.version == version and subnet.prefixlen
    )
    for pool in pools:
        if pool.base.version != version:
            continue
        step = 1 << (pool.base.max_prefixlen - pool.size)
        number, last = int(pool.base.network_address), int(pool.base.broadcast_address)
        while number <= last:
            place = bisect.bisect_right(starts, number + step - 1) - 1
            if place < 0 or ends[place] < number:
                kind = IPv4Network if version == 4 else IPv6Network
                return kind((number, pool.size))
            number += ((ends[place] - number) // step + 1) * step  # past what is in the way
    raise Unavailable(
        EXHAUSTED,
        hint="name one with --subnet, or give the engine more with default-address-pools",
    )


def overlapping(subnet: Subnet, others: Iterable[Subnet]) -> bool:
    """Whether it overlaps one of the same family."""
    return any(other.version == subnet.version and subnet.overlaps(other) for other in others)


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Starts and ends of disjoint ranges that cover these, in order."""
    starts: list[int] = []
    ends: list[int] = []
    for start, end in sorted(ranges):
        if starts and start <= ends[-1] + 1:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends
