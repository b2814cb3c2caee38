"""What a container may open connections to: `none`, `full`, or `allow:` and a list.

    allow:pypi.org,*.debian.org:443,10.1.0.0/16,[2001:db8::1]:53/udp,db:5000-5010/tcp

An entry is a name, `*.` and a name (everything below it, not itself), `*` (any name), or an address or
subnet, IPv6 in brackets where a port follows. After a colon a port or a range, for TCP, UDP and SCTP
alike or, after a slash, for one of them; without a port it means all protocols, ping too. Names are not
looked up here: they are bound to addresses when the container's own look-ups are answered.

Plain values, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from sampan.errors import InvalidArgument

FULL = "full"
NONE = "none"
ALLOW = "allow:"
PROTOCOLS = ("tcp", "udp", "sctp")
ENTRIES_MAX = 512

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(\w+))?")


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """What of an address is meant: protocols and a range of ports; no protocols mean everything."""

    protocols: tuple[str, ...] = ()
    first: int = 0
    last: int = 0


EVERYTHING = Ports()


@dataclass(frozen=True, slots=True)
class Group:
    """The entries of a policy that mean the same ports; the subnets do not overlap."""

    ports: Ports
    subnets: tuple[IPv4Network, ...]
    subnets6: tuple[IPv6Network, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """A policy as it was written, and what it means; `full` and `none` have no groups."""

    text: str
    groups: tuple[Group, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether it allows everything."""
        return self.text == FULL


def parse_policy(text: str) -> NetworkPolicy:
    """The policy that a text means.

    Raises:
        InvalidArgument: which part cannot be meant, and why.
    """
    if text in (FULL, NONE):
        return NetworkPolicy(text)
    if not text.startswith(ALLOW):
        raise InvalidArgument(
            f"invalid network policy: {text!r}", hint="none, full, or allow:NAME|SUBNET[:PORT],…"
        )
    entries = [entry.strip() for entry in text.removeprefix(ALLOW).split(",")]
    if len(entries) > ENTRIES_MAX:
        raise InvalidArgument(f"invalid network policy: more than {ENTRIES_MAX} entries")
    names: dict[Ports, dict[str, None]] = {}
    subnets: dict[Ports, list[IPv4Network | IPv6Network]] = {}
    for entry in entries:
        host, ports = _split(entry)
        subnet = _subnet(host, entry)
        if subnet is not None:
            subnets.setdefault(ports, []).append(subnet)
        else:
            names.setdefault(ports, {})[_name(host, entry)] = None
    return NetworkPolicy(
        text,
        tuple(
            _group(ports, subnets.get(ports, ()), names.get(ports, ()))
            for ports in sorted({*names, *subnets})
        ),
    )


def _group(
    ports: Ports, subnets: Iterable[IPv4Network | IPv6Network], names: Iterable[str]
) -> Group:
    listed = list(subnets)
    return Group(
        ports=ports,
        subnets=tuple(
            collapse_addresses(subnet for subnet in listed if isinstance(subnet, IPv4Network))
        ),
        subnets6=tuple(
            collapse_addresses(subnet for subnet in listed if isinstance(subnet, IPv6Network))
        ),
        names=tuple(names),
    )


def _split(entry: str) -> tuple[str, Ports]:
    """Host and ports of an entry."""
    if entry.startswith("["):
        host, closed, rest = entry[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")) or ":" not in host:
            raise _bad(entry, "an IPv6 address in brackets and perhaps a port is expected")
        return host, _ports(rest[1:], entry) if rest else EVERYTHING
    if entry.count(":") > 1:
        return entry, EVERYTHING
    host, colon, ports = entry.partition(":")
    return host, _ports(ports, entry) if colon else EVERYTHING


def _ports(text: str, entry: str) -> Ports:
    found = _PORTS.fullmatch(text)
    if found is None:
        raise _bad(entry, "the port is none")
    first = int(found[1])
    last = int(found[2] or first)
    if not 0 < first <= last < 1 << 16:
        raise _bad(entry, "ports are 1 to 65535")
    if found[3] is not None and found[3] not in PROTOCOLS:
        raise _bad(entry, f"{found[3]} is not one of {', '.join(PROTOCOLS)}")
    return Ports((found[3],) if found[3] else PROTOCOLS, first, last)


def _subnet(host: str, entry: str) -> IPv4Network | IPv6Network | None:
    """The subnet, if it is meant as one: names have no slash or colon and end in a letter."""
    if "/" not in host and ":" not in host and not host.rpartition(".")[2].isdecimal():
        return None
    try:
        return ip_network(host, strict=False)
    except ValueError:
        raise _bad(entry, "the address or subnet is none") from None


def _name(host: str, entry: str) -> str:
    name = host.lower().removesuffix(".")
    if name == "*":
        return name
    labels = name.removeprefix("*.").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad(entry, "the name is none")
    return name


def _bad(entry: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"invalid network policy: {entry!r}: {reason}")
