"""The three files of the network that a container gets as its own: hosts, hostname, resolv.conf.

Texts as dockerd writes them. `resolv.conf` starts from the machine's; in a network namespace of
its own a container cannot reach what listens on the machine's loopback, so such name servers are
left out, and systemd-resolved's own list is taken where the machine only names its stub.
"""

from __future__ import annotations

import os
import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST_HOSTS = "/etc/hosts"
HOST_RESOLV_CONF = "/etc/resolv.conf"
RESOLVED_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"
RESOLVED_STUB = "127.0.0.53"
EMBEDDED_RESOLVER = "127.0.0.11"
HOST_GATEWAY = "host-gateway"

_HOSTS_HEAD = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_FALLBACK = ("8.8.8.8", "8.8.4.4")  # dockerd's, where no name server is left
_NAMESERVER = re.compile(r"^[ \t]*nameserver[ \t]+(\S+).*\n?", re.MULTILINE)


class HostFile:
    """A file of the machine, read again only when it has changed."""

    __slots__ = ("_path", "_stamp", "_text")

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._text = ""

    def text(self) -> str:
        """Its content; empty if there is no such file."""
        try:
            info = os.stat(self._path)
        except FileNotFoundError:
            return ""
        stamp = (info.st_mtime_ns, info.st_size, info.st_ino)
        if stamp != self._stamp:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                self._text = file.read()
            self._stamp = stamp
        return self._text


_host_hosts = HostFile(HOST_HOSTS)
_host_resolv_conf = HostFile(HOST_RESOLV_CONF)
_resolved_resolv_conf = HostFile(RESOLVED_RESOLV_CONF)


def hosts_text(
    *,
    hostname: str,
    domainname: str = "",
    addresses: Sequence[str] = (),
    extra_hosts: Sequence[str] = (),
    host_gateway: str = "",
    links: Sequence[str] = (),
) -> str:
    """`/etc/hosts` of a container with its own network namespace.

    `addresses` are the container's, `extra_hosts` are `NAME:ADDRESS` in which `host-gateway`
    stands for `host_gateway`, `links` lines for linked containers.

    Raises:
        InvalidArgument: a malformed extra host, in dockerd's words.
    """
    lines = [_HOSTS_HEAD, *_extra_lines(extra_hosts, host_gateway), *links]
    lines += [own_line(hostname, domainname, address) for address in addresses]
    return "".join(lines)


def own_line(hostname: str, domainname: str, address: str) -> str:
    """The line of `/etc/hosts` for one of the container's own addresses."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    names = f"{full} {hostname.partition('.')[0]}" if "." in full else full
    return f"{address.partition('/')[0]}\t{names}\n"


def host_mode_hosts_text(*, extra_hosts: Sequence[str] = (), host_gateway: str = "") -> str:
    """`/etc/hosts` under `--network host`: the machine's, unless extra hosts were asked for."""
    if extra_hosts:
        return "".join([_HOSTS_HEAD, *_extra_lines(extra_hosts, host_gateway)])
    return _host_hosts.text()


def hostname_text(hostname: str) -> str:
    """`/etc/hostname`."""
    return f"{hostname}\n"


def resolv_conf_text(
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    ipv6: bool = False,
) -> str:
    """`/etc/resolv.conf` of a container with its own network namespace.

    What is given replaces what the machine has; a search of `.` alone means none. IPv6 servers
    of the machine are left out unless the container has `ipv6`.
    """
    host = host_resolv_conf()
    if servers or search or options:
        return _build(
            servers or _usable(_servers(host), ipv6=ipv6) or _FALLBACK,
            search or _words(host, "search"),
            options or _words(host, "options"),
        )
    kept = _NAMESERVER.sub(lambda line: line[0] if _reachable(line[1], ipv6=ipv6) else "", host)
    if not _servers(kept):
        kept += "".join(f"nameserver {server}\n" for server in _FALLBACK)
    return kept


def embedded_resolv_conf_text(*, search: Sequence[str] = (), options: Sequence[str] = ()) -> str:
    """`/etc/resolv.conf` of a container that asks the embedded resolver.

    The servers that were given or are the machine's are asked by that. Names without a dot are
    asked for as they are, unless `options` say otherwise.
    """
    host = _host_resolv_conf.text()
    chosen = list(options or _words(host, "options"))
    if not any(option.startswith("ndots:") for option in chosen):
        chosen.append("ndots:0")
    return _build([EMBEDDED_RESOLVER], search or _words(host, "search"), chosen)


def host_mode_resolv_conf_text(
    *, servers: Sequence[str] = (), search: Sequence[str] = (), options: Sequence[str] = ()
) -> str:
    """`/etc/resolv.conf` under `--network host`: the machine's, loopback servers and all."""
    host = _host_resolv_conf.text()
    if not (servers or search or options):
        return host
    return _build(
        servers or _servers(host),
        search or _words(host, "search"),
        options or _words(host, "options"),
    )


def host_resolv_conf() -> str:
    """The machine's `resolv.conf`; that of systemd-resolved where the stub is all it names."""
    text = _host_resolv_conf.text()
    if _servers(text) == [RESOLVED_STUB]:
        return _resolved_resolv_conf.text() or text
    return text


def parse_extra_host(text: str, host_gateway: str = "") -> tuple[str, str]:
    """(name, address) of `NAME:ADDRESS`; the address may be IPv6, in brackets or not.

    Raises:
        InvalidArgument: in dockerd's words.
    """
    name, colon, address = text.partition(":")
    if not colon or not name or any(character.isspace() for character in name):
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address == HOST_GATEWAY:
        if not host_gateway:
            raise InvalidArgument("unable to derive the IP value for host-gateway")
        return name, host_gateway
    address = address.removeprefix("[").removesuffix("]")
    if not is_address(address):
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')
    return name, address


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address."""
    try:
        IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _extra_lines(extra_hosts: Sequence[str], host_gateway: str) -> list[str]:
    pairs = (parse_extra_host(text, host_gateway) for text in extra_hosts)
    return [f"{address}\t{name}\n" for name, address in pairs]


def _build(servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    lines = []
    if search and " ".join(search).strip() != ".":
        lines.append(f"search {' '.join(search)}\n")
    lines += [f"nameserver {server}\n" for server in servers]
    if options:
        lines.append(f"options {' '.join(options)}\n")
    return "".join(lines)


def _servers(text: str) -> list[str]:
    return _NAMESERVER.findall(text)


def _usable(servers: Sequence[str], *, ipv6: bool) -> list[str]:
    return [server for server in servers if _reachable(server, ipv6=ipv6)]


def _reachable(server: str, *, ipv6: bool) -> bool:
    """Whether a container can ask this name server of the machine's."""
    if ":" in server:
        return ipv6 and server != "::1"
    return not server.startswith("127.")


def _words(text: str, keyword: str) -> list[str]:
    """The words after the keyword; the last such line counts, see resolv.conf(5)."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == keyword:
            found = words[1:]
    return found
