"""Health probes without a process: a TCP connection, an HTTP request, made from within the container's
network namespace.

A short-lived thread enters the namespace and makes a socket there; a socket stays in the namespace it was
made in, and the event loop does the rest. The thread ends and never comes back from where it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from sampan.engine.model import ContainerConfig, HealthConfig, HostConfig
from sampan.errors import InvalidArgument
from sampan.linux import syscalls

# As annotation or label of a create request, for clients that have no flag of this name.
WISHES = {"sampan.health-http": "HTTP", "sampan.health-tcp": "TCP"}
LOCALHOST = ("127.0.0.1", "::1")
HEAD_BYTES = 4096  # of an answer; its status line is what counts
GOOD_STATUSES = range(200, 400)
FAILED = 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: addresses in the order they are tried; `request` is empty for TCP alone."""

    addresses: tuple[str, ...]
    port: int
    request: bytes = b""


def take_wishes(config: ContainerConfig, host: HostConfig) -> None:
    """Make the health check of an annotation or a label that asks for a probe.

    Raises:
        InvalidArgument: it contradicts another wish.
    """
    wanted = {**config.labels, **(host.annotations or {})}
    tests = [[kind, wanted[name]] for name, kind in WISHES.items() if name in wanted]
    if not tests:
        return
    check = config.healthcheck = config.healthcheck or HealthConfig()
    if len(tests) > 1 or check.test not in ([], tests[0]):
        raise InvalidArgument("conflicting options: a container has one health check")
    check.test = tests[0]


def target(check: HealthConfig | None) -> Target | None:
    """What a check of the kind TCP or HTTP connects to; None for any other.

    Raises:
        InvalidArgument: a port or URL that is none.
    """
    match check.test if check is not None else []:
        case ["TCP", *arguments]:
            return _tcp(" ".join(arguments))
        case ["HTTP", *arguments]:
            return _http(" ".join(arguments))
        case _:
            return None


def _tcp(text: str) -> Target:
    """`80`, `10.0.0.1:80` or `[::1]:80`."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 1 << 16):
        raise InvalidArgument(f"invalid health check: {text!r} is no port")
    return Target(
        _addresses(host.removeprefix("[").removesuffix("]") or "localhost", text), int(port)
    )


def _http(url: str) -> Target:
    problem = f"invalid health check: {url!r} is no http:// URL"
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        raise InvalidArgument(problem)
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise InvalidArgument(f"{problem}: {error}") from error
    if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc:
        raise InvalidArgument(problem)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: sampan-health\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    return Target(_addresses(parts.hostname, url), port, request.encode())


def _addresses(host: str, text: str) -> tuple[str, ...]:
    """No name service is asked: whose would it be?"""
    if host == "localhost":
        return LOCALHOST
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        raise InvalidArgument(
            f"invalid health check: {text!r} has to name an IP address or localhost"
        ) from None


async def probe(target: Target, process: int) -> tuple[int, str]:
    """Make the probe in the network of a process, by its pidfd; exit code and what to log.

    Whoever calls sets a time limit; cancelled, it leaves nothing.
    """
    failure = ""
    for address in target.addresses:
        try:
            return 0, await _connected(target, address, process)
        except _BadAnswer as answer:
            return FAILED, str(answer)
        except OSError as error:
            failure = failure or f"connect to {address} port {target.port}: {_reason(error)}"
    return FAILED, failure


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


class _BadAnswer(Exception):
    """The server answered, and not well."""


async def _connected(target: Target, address: str, process: int) -> str:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with await _socket_of(process, family) as sock:
        await loop.sock_connect(sock, (address, target.port))
        if not target.request:
            return f"connected to {address} port {target.port}"
        await loop.sock_sendall(sock, target.request)
        return _judge(await _status_line(loop, sock))


async def _status_line(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> str:
    head = b""
    while b"\n" not in head and len(head) < HEAD_BYTES:
        data = await loop.sock_recv(sock, HEAD_BYTES - len(head))
        if not data:
            break
        head += data
    return head.partition(b"\n")[0].decode(errors="replace").strip()


def _judge(line: str) -> str:
    """The status line, when it is one of success."""
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        raise _BadAnswer(f"no HTTP answer: {line[:80]!r}")
    if not (words[1].isascii() and words[1].isdecimal() and int(words[1][:4]) in GOOD_STATUSES):
        raise _BadAnswer(line)
    return line


async def _socket_of(process: int, family: int) -> socket.socket:
    """A non-blocking socket in the network namespace of a process."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[socket.socket] = loop.create_future()
    namespace = os.dup(process)  # the container may end meanwhile

    def deliver(sock: socket.socket | None, error: OSError | None) -> None:
        if made.cancelled():
            if sock is not None:
                sock.close()
        elif sock is not None:
            made.set_result(sock)
        elif error is not None:
            made.set_exception(error)

    def make() -> None:
        sock, failure = None, None
        try:
            syscalls.setns(namespace, syscalls.CLONE_NEWNET)
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            failure = error
        finally:
            os.close(namespace)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(deliver, sock, failure)

    try:
        threading.Thread(target=make, name="health probe", daemon=True).start()
    except RuntimeError as error:  # the limit of processes
        os.close(namespace)
        raise OSError(errno.EAGAIN, str(error)) from None
    return await made
