"""Sockets asked at 127.0.0.11:53 in a namespace whose port 53 stays free."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sampan.linux import dns_sockets, netlink
from support.netns import NetworkNamespace

pytestmark = [pytest.mark.root, pytest.mark.vm]

AT = ("127.0.0.11", 53)
PATIENCE_S = 20.0


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    namespace = NetworkNamespace()
    with namespace.entered():
        netlink.configure_inside([])
        yield namespace
    namespace.close()


def wrap(sock: dns_sockets.Socket) -> socket.socket:
    wrapped = socket.socket(fileno=sock.detach())
    wrapped.settimeout(PATIENCE_S)
    return wrapped


def client(kind: int = socket.SOCK_DGRAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.settimeout(PATIENCE_S)
    return sock


def test_both_protocols_are_asked_at_port_53(namespace: NetworkNamespace) -> None:
    """And the answers come from there, also to a client that is connected and takes no others."""
    udp, tcp = (wrap(each) for each in dns_sockets.open_sockets())
    with udp, tcp, client() as asking, client(socket.SOCK_STREAM) as calling:
        asking.connect(AT)
        asking.send(b"question")
        question, back = udp.recvfrom(100)
        assert question == b"question"
        udp.sendto(b"answer", back)
        assert asking.recvfrom(100) == (b"answer", AT)
        calling.connect(AT)
        accepted, _ = tcp.accept()
        with accepted:
            accepted.sendall(b"x" * 100_000)
            assert len(calling.makefile("rb").read(100_000)) == 100_000
        assert calling.getpeername() == AT


def test_a_name_server_of_ones_own_keeps_port_53(namespace: NetworkNamespace) -> None:
    """On all addresses of both protocols; it is asked at every address but 127.0.0.11."""
    udp, tcp = (wrap(each) for each in dns_sockets.open_sockets())
    with udp, tcp, client() as own, client(socket.SOCK_STREAM) as own_tcp, client() as asking:
        own.bind(("0.0.0.0", 53))
        own_tcp.bind(("0.0.0.0", 53))
        own_tcp.listen()
        asking.sendto(b"own", ("127.0.0.1", 53))
        assert own.recvfrom(100)[0] == b"own"
        asking.sendto(b"ours", AT)
        assert udp.recvfrom(100)[0] == b"ours"


def test_opened_again_at_the_same_port(namespace: NetworkNamespace) -> None:
    """A client that is connected does not notice who answers."""
    with client() as asking:
        asking.connect(AT)
        ports = []
        for _ in range(2):
            udp, tcp = (wrap(each) for each in dns_sockets.reopen_sockets())
            with udp, tcp:
                ports.append(udp.getsockname()[1])
                asking.send(b"question")
                udp.sendto(b"answer", udp.recvfrom(100)[1])
                assert asking.recv(100) == b"answer"
        assert ports[0] == ports[1] == dns_sockets.installed_port()


def test_opened_again_when_the_port_is_taken(namespace: NetworkNamespace) -> None:
    for each in dns_sockets.open_sockets():
        each.close()
    with client() as thief, client() as asking:
        thief.bind((dns_sockets.ADDRESS, dns_sockets.installed_port()))
        udp, tcp = (wrap(each) for each in dns_sockets.reopen_sockets())
        with udp, tcp:
            assert dns_sockets.installed_port() == udp.getsockname()[1] != thief.getsockname()[1]
            asking.sendto(b"question", AT)
            assert udp.recvfrom(100)[0] == b"question"


def test_a_second_opening_is_refused(namespace: NetworkNamespace) -> None:
    sockets = dns_sockets.open_sockets()
    with pytest.raises(FileExistsError):
        dns_sockets.open_sockets()
    for each in sockets:
        each.close()
