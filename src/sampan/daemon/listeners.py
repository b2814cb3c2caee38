"""The sockets that the API is served on.

A unix socket is made with the rights it shall have before anybody can connect; one that a dead
daemon left behind is replaced, one that a living one listens on is not.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from collections.abc import Sequence

from sampan.errors import Conflict, InvalidArgument, SampanError, Unavailable, Unsupported

# dockerd's group and ours, whichever exists, when --group is not given.
DEFAULT_GROUPS = ("docker", "sampan")
SOCKET_MODE = 0o660
BACKLOG = 1024
DEFAULT_TCP_PORT = 2375


class Listener:
    """A listening socket; `close` takes a unix socket's file away if it is still this one."""

    def __init__(self, host: str, sock: socket.socket, *, path: str = "") -> None:
        self.host = host
        self.socket = sock
        self._path = path
        self._inode = os.stat(path).st_ino if path else 0

    def close(self) -> None:
        """Idempotent."""
        self.socket.close()
        path, self._path = self._path, ""
        if not path:
            return
        try:
            if os.lstat(path).st_ino == self._inode:
                os.unlink(path)
        except FileNotFoundError:
            pass


def listen(hosts: Sequence[str], *, group: str = "") -> list[Listener]:
    """Listen on all hosts, or on none.

    Raises:
        InvalidArgument, Unsupported: a host cannot be meant, or is of a kind that is not built.
        Conflict, Unavailable: somebody else listens there, or the kernel refuses.
    """
    listeners: list[Listener] = []
    try:
        for host in hosts:
            listeners += _listen_on(host, group)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen_on(host: str, group: str) -> list[Listener]:
    scheme, separator, address = host.partition("://")
    if not separator:
        scheme, address = ("unix", host) if host.startswith("/") else ("tcp", host)
    match scheme:
        case "unix":
            return [_listen_unix(host, address, group)]
        case "tcp":
            return _listen_tcp(host, address)
        case "fd":
            raise Unsupported(
                f"{host}: sockets from systemd (fd://) are not supported",
                hint="use -H unix:///path",
            )
        case _:
            raise InvalidArgument(f"invalid bind address protocol: {host}")


def _listen_unix(host: str, path: str, group: str) -> Listener:
    if not os.path.isabs(path):
        raise InvalidArgument(f"{host}: a unix socket has to be an absolute path")
    group_id = group_id_of(group)
    os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o777)  # nobody connects until owner and mode are set
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise _refused(host, error) from error
    finally:
        os.umask(previous)
    try:
        os.chown(path, 0 if os.geteuid() == 0 else -1, group_id)
        os.chmod(path, SOCKET_MODE)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        os.unlink(path)
        raise _refused(host, error) from error
    return Listener(host, sock, path=path)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on.

    Raises:
        Conflict: somebody does, or it is no socket.
    """
    try:
        # connect(2) refuses a regular file just as it refuses a socket without a listener.
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"{path} is no socket; it is in the way")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ECONNREFUSED:
            raise Conflict(f"{path}: {error.strerror}; it is in the way") from error
    else:
        raise Conflict(
            f"{path}: another daemon listens there", hint="stop it, or choose another --host"
        )
    finally:
        probe.close()
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def group_id_of(group: str) -> int:
    """The group's number; -1, which leaves it as it is, when there is none to use.

    Raises:
        InvalidArgument: the group that was asked for does not exist.
    """
    for name in (group,) if group else DEFAULT_GROUPS:
        if name.isdecimal():
            return int(name)
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            continue
    if group:
        raise InvalidArgument(f"group {group} not found")
    return -1


def _listen_tcp(host: str, address: str) -> list[Listener]:
    name, port = _split_address(host, address)
    try:
        found = socket.getaddrinfo(
            name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise InvalidArgument(f"{host}: {error.strerror}") from error
    listeners: list[Listener] = []
    for family, kind, protocol, _, endpoint in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(endpoint)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            for listener in listeners:
                listener.close()
            raise _refused(host, error) from error
        listeners.append(Listener(host, sock))
    return listeners


def _split_address(host: str, address: str) -> tuple[str, int]:
    """`name:port`, `[v6]:port`, `name` alone with the default port."""
    name, colon, port = address.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = address, str(DEFAULT_TCP_PORT)
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"invalid bind address ({host}): the port is no number")
    return name.removeprefix("[").removesuffix("]"), int(port)


def _refused(host: str, error: OSError) -> SampanError:
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"{host}: {error.strerror}", hint="choose another --host")
    return Unavailable(f"{host}: {error.strerror or error}")
