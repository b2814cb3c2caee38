"""What `-p`, `-P` and their fields of the API ask for: read and checked, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from sampan.engine.model import ContainerConfig, HostConfig, PortBinding
from sampan.engine.numbers import decimal
from sampan.errors import InvalidArgument

PROTOCOLS = ("tcp", "udp", "sctp")
ANY_PORT = range(1)  # the kernel's choice


@dataclass(frozen=True, slots=True)
class PortWish:
    """A port of the container to be published: at `address` of the host (empty for all), at the first
    free of `numbers`.
    """

    protocol: str
    port: int
    address: str
    numbers: range


def port_wishes(config: ContainerConfig, host: HostConfig) -> list[PortWish]:
    """All that is to be published, in the order of the container's ports.

    Raises:
        InvalidArgument: a port or address that is none.
    """
    wishes = []
    bound = host.port_bindings or {}
    for text, bindings in bound.items():
        port, protocol = container_port(text)
        for binding in bindings or []:
            wishes.append(_wish(protocol, port, binding))
        if bindings == []:
            wishes.append(PortWish(protocol, port, "", ANY_PORT))
    if host.publish_all_ports:
        published = {container_port(text) for text in bound}
        for text in config.exposed_ports or {}:
            if (found := container_port(text)) not in published:
                wishes.append(PortWish(found[1], found[0], "", ANY_PORT))
    # Ports that are named come before those that may be any: these must not take them away.
    return sorted(wishes, key=lambda wish: (not wish.numbers.start, wish.port, wish.protocol))


def check_bindings(bindings: Mapping[str, list[PortBinding] | None]) -> None:
    """Refuse what cannot be meant.

    Raises:
        InvalidArgument: dockerd's texts.
    """
    for text, listed in bindings.items():
        port, protocol = container_port(text)
        for binding in listed or []:
            _wish(protocol, port, binding)


def container_port(text: str) -> tuple[int, str]:
    """(80, "tcp") of `80/tcp` or `80`.

    Raises:
        InvalidArgument: it is none.
    """
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    port = _port(number)
    if port is None:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    return port, protocol


def _wish(protocol: str, port: int, binding: PortBinding) -> PortWish:
    address = binding.host_ip.strip("[]")
    if address:
        try:
            address = str(ip_address(address))
        except ValueError:
            raise InvalidArgument(f"invalid IP address: {binding.host_ip}") from None
    return PortWish(protocol, port, address, _numbers(binding.host_port))


def _numbers(text: str) -> range:
    if text in ("", "0"):
        return ANY_PORT
    first, dash, last = text.partition("-")
    lowest, highest = _port(first), _port(last if dash else first)
    if lowest is None or highest is None or lowest > highest:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    return range(lowest, highest + 1)


def _port(text: str) -> int | None:
    """1 to 65535, None for anything else."""
    number = decimal(text)
    return number if number is not None and 0 < number < 65536 else None
