"""The name servers that a container's other questions go to."""

from __future__ import annotations

import _socket
import os

RESOLV_CONF = "/etc/resolv.conf"
SERVERS_MAX = 3  # resolv.conf(5): MAXNS; dockerd's too
FALLBACK = ("8.8.8.8", "8.8.4.4")  # dockerd's


class Upstream:
    """A server, and whether it is asked from the machine's network or from the container's."""

    __slots__ = ("address", "family", "from_host")

    def __init__(self, address: str, *, from_host: bool) -> None:
        self.address = address
        self.family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
        self.from_host = from_host

    def seen_from_host(self) -> Upstream:
        """The same server, asked from the machine's network."""
        return self if self.from_host else Upstream(self.address, from_host=True)


class HostServers:
    """Those of the machine, read again when its file has changed.

    What only the machine reaches is asked from there: servers on its loopback (systemd-resolved's
    stub among them, so that its split views hold for containers too) and those with IPv6.
    """

    def __init__(self, path: str = RESOLV_CONF) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._servers: list[Upstream] = []

    def servers(self) -> list[Upstream]:
        try:
            info = os.stat(self._path)
        except OSError:
            return self._servers or from_text("")
        stamp = (info.st_mtime_ns, info.st_size, info.st_ino)
        if stamp != self._stamp:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                self._servers = from_text(file.read(65536))
            self._stamp = stamp
        return self._servers


def from_text(text: str) -> list[Upstream]:
    """The servers of a resolv.conf; dockerd's own choice if it has none."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and is_address(words[1]):
            address = words[1]
            local = ":" in address or address.startswith("127.")
            found.append(Upstream(address, from_host=local))
    found = found or [Upstream(address, from_host=False) for address in FALLBACK]
    return found[:SERVERS_MAX]


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address; the latter may name its interface (`fe80::1%eth0`)."""
    try:
        if ":" in text:
            _socket.inet_pton(_socket.AF_INET6, text.partition("%")[0])
        else:
            _socket.inet_pton(_socket.AF_INET, text)
    except OSError:
        return False
    return True
