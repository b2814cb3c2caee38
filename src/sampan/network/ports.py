"""Ports of the host: who has which, and a socket for each, so that nobody else takes it.

    ports = HostPorts()
    held = ports.take("tcp", "0.0.0.0", (8080,))    # or a range, or (0,) for any that is free
    held.number
    ports.release(held)

The sockets are bound and do not listen: packets are translated before they get here, and what is not is
refused as on any closed port.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import Conflict, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}
_WILDCARDS = ("0.0.0.0", "::")
_ATTEMPTS = 16  # to find one free port in both families


class PortTaken(Conflict):
    """The port cannot be had; the message is dockerd's."""


@dataclass(eq=False, slots=True)
class HeldPort:
    """A port of the host that is ours. `address` is `0.0.0.0` or `::` for all of a family."""

    protocol: str
    address: str
    number: int
    socket: socket.socket | None

    @property
    def wildcard(self) -> bool:
        return self.address in _WILDCARDS


class HostPorts:
    """The ports that one engine has published; all of it in memory, and one socket a port."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, bool, int], list[HeldPort]] = {}

    def take(
        self, protocol: str, address: str, numbers: Iterable[int], *, adopted: bool = False
    ) -> HeldPort:
        """The first of these ports that is free at the address.

        `adopted`: it was ours before this daemon ran, so that somebody who has bound it since does
        not matter: packets come to us.

        Raises:
            PortTaken: none of them is free.
            InvalidArgument: the address is none of this machine's.
        """
        failure: PortTaken | None = None
        for number in numbers:
            try:
                return self._take(protocol, address, number, adopted=adopted)
            except PortTaken as error:
                failure = failure or error
        assert failure is not None, "no port was asked for"
        raise failure

    def take_both(self, protocol: str, numbers: Iterable[int]) -> list[HeldPort]:
        """The same port for all addresses of IPv4 and IPv6.

        Raises:
            PortTaken: none of them is free in both.
        """
        failure: PortTaken | None = None
        for number in numbers:
            for _ in range(1 if number else _ATTEMPTS):
                try:
                    first = self._take(protocol, "0.0.0.0", number)
                except PortTaken as error:
                    failure = failure or error
                    continue
                try:
                    return [first, self._take(protocol, "::", first.number)]
                except PortTaken as error:
                    failure = failure or error
                    self.release(first)
        assert failure is not None, "no port was asked for"
        raise failure

    def release(self, held: HeldPort) -> None:
        """Let others have the port. Idempotent."""
        key = (held.protocol, ":" in held.address, held.number)
        others = self._held.get(key, [])
        if held in others:
            others.remove(held)
        if not others:
            self._held.pop(key, None)
        if held.socket is not None:
            held.socket.close()
            held.socket = None

    def close(self) -> None:
        """Let go of all sockets."""
        for ports in list(self._held.values()):
            for held in list(ports):
                self.release(held)

    def _take(self, protocol: str, address: str, number: int, *, adopted: bool = False) -> HeldPort:
        ipv6 = ":" in address
        for other in self._held.get((protocol, ipv6, number), ()) if number else ():
            if other.wildcard or address in (*_WILDCARDS, other.address):
                raise PortTaken(
                    f"Bind for {shown(address, number)} failed: port is already allocated"
                )
        sock = None
        try:
            sock = _bound(protocol, address, number)
        except PortTaken:
            if not adopted:
                raise
        if sock is not None:
            number = sock.getsockname()[1]
        held = HeldPort(protocol, address, number, sock)
        self._held.setdefault((protocol, ipv6, number), []).append(held)
        return held


def shown(address: str, number: int) -> str:
    """`0.0.0.0:80`, `[::]:80`."""
    return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"


def _bound(protocol: str, address: str, number: int) -> socket.socket | None:
    """A socket bound there; None where the kernel has no sockets of the kind (SCTP, mostly)."""
    kind, protocol_number = _KINDS[protocol]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol_number)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            if not number:
                raise InvalidArgument(
                    f"a host port has to be named for {protocol}: the kernel has no such sockets"
                ) from error
            return None
        raise
    try:
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "udp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # nothing is to arrive here
        _bind(sock, address, number)
    except OSError as error:
        sock.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortTaken(
                f"failed to bind host port {shown(address, number)}/{protocol}: "
                f"{os.strerror(error.errno).lower()}"
            ) from error
        raise InvalidArgument(
            f"failed to bind host port {shown(address, number)}/{protocol}: "
            f"{os.strerror(error.errno or 0).lower()}"
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, address: str, number: int) -> None:
    """Bind; connections that a former owner closed lately (TIME-WAIT) do not keep the port."""
    try:
        sock.bind((address, number))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or sock.type != socket.SOCK_STREAM:
            raise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, number))
        # Only listening tells whether somebody else listens; ending that keeps the port.
        sock.listen(1)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
