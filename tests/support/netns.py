"""Network namespaces as machines of a test: made, entered and gone without a process of their own.

    host, internet = NetworkNamespace(), NetworkNamespace()
    connect(host, "wan0", "198.51.100.2/24", internet, "lan0", "198.51.100.1/24")
    with internet.entered():
        server = listen("198.51.100.1")

A socket stays in the namespace it was opened in, so one thread plays all the machines.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class NetworkNamespace:
    """A network namespace with its loopback up; gone when closed and left by all."""

    def __init__(self) -> None:
        self.fd = -1
        failure: list[OSError] = []

        def make() -> None:
            try:
                _check(_libc.unshare(CLONE_NEWNET), "unshare")
                self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                failure.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace, and afterwards back where it was."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(self.fd, CLONE_NEWNET), "setns")
            try:
                yield
            finally:
                _check(_libc.setns(back, CLONE_NEWNET), "setns back")
        finally:
            os.close(back)

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def listen(address: str, port: int = 0) -> socket.socket:
    """A TCP server in the current namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family)
    server.settimeout(30)
    server.bind((address, port))
    server.listen()
    return server


def reach(
    server: socket.socket,
    client: NetworkNamespace,
    timeout_s: float = 20,
    *,
    at: tuple[str, int] | None = None,
) -> str:
    """Connect from `client` to the server, exchange a byte; returns the address the server saw.

    `at`: where the client looks for it, if that is not the server's own address.

    Raises:
        TimeoutError: dropped on the way.
        OSError: refused or unreachable.
    """
    with client.entered():
        end = socket.socket(server.family)
    with end:
        end.settimeout(timeout_s)
        end.connect(at or server.getsockname()[:2])
        accepted, peer = server.accept()
        with accepted:
            accepted.settimeout(timeout_s)
            accepted.sendall(b"x")
            assert end.recv(1) == b"x"
        return str(peer[0])


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Ask until it is so; for changes the kernel makes in its own time and tells nobody about."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        time.sleep(0.002)
