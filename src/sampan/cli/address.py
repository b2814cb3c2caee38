"""Where an engine listens, and connecting to it."""

from __future__ import annotations

import _socket

from sampan.cli.failures import CommandError, ConnectError
from sampan.cli.roots import DEFAULT_EXEC_ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Address:
    """Where an engine listens: `url` as the user wrote it, and what the socket calls need of it."""

    __slots__ = ("family", "host", "path", "port", "url")

    def __init__(self, url: str, *, path: str = "", host: str = "", port: int = 0) -> None:
        self.url = url
        self.path = path
        self.host = host
        self.port = port


def parse_address(url: str) -> Address:
    """An address from `-H`, DOCKER_HOST or SAMPAN_HOST: unix://PATH or tcp://HOST[:PORT].

    Raises:
        CommandError: another scheme, or a port that is none.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "tcp", url
    if scheme == "unix":
        return Address(url, path=rest or f"{DEFAULT_EXEC_ROOT}/sampan.sock")
    if scheme not in ("tcp", "http"):
        raise CommandError(f"unable to parse docker host `{url}`: use unix:// or tcp://")
    host, _, port = rest.rstrip("/").rpartition(":") if _has_port(rest) else (rest, "", "2375")
    if not port.isdecimal() or int(port) > 65535:
        raise CommandError(f"unable to parse docker host `{url}`: invalid port {port!r}")
    return Address(url, host=host.strip("[]") or "127.0.0.1", port=int(port))


def _has_port(rest: str) -> bool:
    tail = rest.rstrip("/").rpartition("]")[2]
    return ":" in tail


def connect(address: Address) -> _socket.socket:
    """A new connection to the engine.

    Raises:
        ConnectError: nothing listens there, or access is denied.
    """
    try:
        if not address.path:
            return _connect_tcp(address)
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        _connect(sock, address.path)
        return sock
    except OSError as error:
        raise _unreachable(address, error) from error


def _connect(sock: _socket.socket, address: Any) -> None:
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise


def _connect_tcp(address: Address) -> _socket.socket:
    failure = OSError("no address found")
    for family, kind, protocol, _, target in _socket.getaddrinfo(
        address.host, address.port, 0, _socket.SOCK_STREAM
    ):
        sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, protocol)
        try:
            _connect(sock, target)
        except OSError as error:
            failure = error
            continue
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        return sock
    raise failure


def _unreachable(address: Address, error: OSError) -> ConnectError:
    if isinstance(error, PermissionError):
        return ConnectError(
            f"permission denied while trying to connect to the docker API at {address.url}",
            hint="run as root, or join the group that owns the socket",
        )
    if isinstance(error, _socket.gaierror):
        return ConnectError(f"error during connect: lookup {address.host}: {error.strerror}")
    return ConnectError(
        f"Cannot connect to the Docker daemon at {address.url}. Is the docker daemon running?"
    )
