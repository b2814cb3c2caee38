"""A server of this machine made visible in the network namespace of an engine that has its own.

dockerd, the oracle, runs in a network namespace; a registry does not. A socket stays in the
namespace in which it was opened, so a listener opened there and connections opened here meet in
one process of copying.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.netns import NetworkNamespace


class _Existing(NetworkNamespace):
    """The network namespace of a process."""

    def __init__(self, pid: int) -> None:
        self.fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def visible_to(pid: int, *addresses: str) -> Iterator[None]:
    """`host:port` of each address reaches, from that process's namespace, the same one here."""
    forwarders = []
    try:
        for address in addresses:
            forwarders.append(_Forwarder(pid, address))
        yield
    finally:
        for forwarder in forwarders:
            forwarder.close()


class _Forwarder:
    def __init__(self, pid: int, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._open: set[socket.socket] = set()
        namespace = _Existing(pid)
        try:
            with namespace.entered():
                self._listener = socket.create_server(self._target)
        finally:
            namespace.close()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        with client, server:
            self._open |= {client, server}
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()
            self._open -= {client, server}


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(256 << 10):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
