"""The resolver's process: names, other servers, hostile containers, and its own end."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from sampan.network.names import messages
from sampan.network.names.connection import OUTSTANDING_MAX
from sampan.network.names.messages import AAAA, PTR, REFUSED, SERVFAIL
from support.netns import NetworkNamespace
from support.resolver import (
    AT,
    PATIENCE_S,
    Answer,
    FakeContainer,
    ResolverProcess,
    Upstream,
    make_answer,
    make_query,
    receive_framed,
    send_framed,
    wait_until_gone,
)
from support.waiting import wait_for

pytestmark = [pytest.mark.root]

TXT = 16
HOST_SERVER = "127.0.0.53"


@pytest.fixture
def host() -> Iterator[NetworkNamespace]:
    """What the resolver takes for the machine."""
    from sampan.linux import netlink

    namespace = NetworkNamespace()
    with namespace.entered():
        netlink.configure_inside([])
    yield namespace
    namespace.close()


@pytest.fixture
def resolver(tmp_path: os.PathLike[str], host: NetworkNamespace) -> Iterator[ResolverProcess]:
    made = ResolverProcess(str(tmp_path), host, f"nameserver {HOST_SERVER}\n")
    yield made
    made.close()


@pytest.fixture
def container(resolver: ResolverProcess) -> Iterator[Callable[[str], FakeContainer]]:
    """Makes containers; they end before the resolver does."""
    made: list[FakeContainer] = []

    def make(identity: str) -> FakeContainer:
        made.append(FakeContainer(identity))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def upstream(host: NetworkNamespace) -> Iterator[Upstream]:
    """The machine's name server, on its loopback."""
    made = Upstream(host, HOST_SERVER)
    yield made
    made.close()


Make = Callable[[str], FakeContainer]


def test_names(resolver: ResolverProcess, container: Make) -> None:
    """Names, aliases, reverse, over both protocols; what a name does not have is no matter of others."""
    asking = container("a")
    resolver.place("a", ["client"], "10.0.0.2")
    resolver.place("b", ["Web", "www"], "10.0.0.3", "fd00::3")
    resolver.serve(asking)
    for tcp in (False, True):
        assert asking.ask("web", tcp=tcp).addresses == ["10.0.0.3"]
        assert asking.ask("WWW.net", AAAA, tcp=tcp).addresses == ["fd00::3"]
        for name, qtype in (("client", AAAA), ("web", TXT)):
            answer = asking.ask(name, qtype, tcp=tcp)
            assert (answer.rcode, answer.addresses) == (0, [])
    reverse = asking.ask("3.0.0.10.in-addr.arpa", PTR)
    assert messages.wire_name("web.net") in reverse.message
    resolver.tell("unplace", network="net", container="b")
    resolver.place("a", ["renamed"], "10.0.0.2")
    resolver.settle()
    assert asking.ask("renamed").addresses == ["10.0.0.2"]


def test_a_container_sees_its_own_networks(resolver: ResolverProcess, container: Make) -> None:
    one, two = container("a"), container("b")
    resolver.place("a", ["x"], "10.0.0.1", network="one")
    resolver.place("b", ["x"], "10.0.0.2", network="two")
    resolver.place("b", ["y"], "10.0.0.3", network="one")
    resolver.serve(one, ["one"])
    resolver.serve(two, ["two", "one"])
    assert one.ask("x").addresses == ["10.0.0.1"]
    assert two.ask("x").addresses == ["10.0.0.2"]
    assert two.ask("x.one").addresses == ["10.0.0.1"]
    assert two.ask("y").addresses == ["10.0.0.3"]


def test_many_addresses_are_cut_for_udp(resolver: ResolverProcess, container: Make) -> None:
    asking = container("a")
    for n in range(200):
        resolver.place(f"c{n}", [f"n{n}", "all"], f"10.0.1.{n}")
    resolver.serve(asking)
    short, whole = asking.ask("all"), asking.ask("all", tcp=True)
    assert short.cut and len(short.message) <= 512 and short.addresses
    assert not whole.cut and len(set(whole.addresses)) == 200


def test_others_are_asked_from_the_machine_or_from_the_container(
    resolver: ResolverProcess, container: Make, upstream: Upstream
) -> None:
    """The machine's server on its loopback from the machine, one that the user names from the container."""
    one, two = container("a"), container("b")
    resolver.place("a", ["x"], "10.0.0.1")
    resolver.serve(one)
    resolver.serve(two, servers=["127.0.0.1"])
    sock = one.socket()
    sock.connect(AT)
    sock.send(make_query("example.org", identity=77))
    query, sender = upstream.asked()
    # An answer that somebody else made up is none: wrong number, wrong question.
    wrong = bytes([query[0] ^ 1]) + query[1:]
    upstream.udp.sendto(make_answer(wrong, ["6.6.6.6"]), sender)
    upstream.udp.sendto(query[:2] + make_answer(make_query("other.org"), ["6.6.6.6"])[2:], sender)
    upstream.udp.sendto(make_answer(query, ["192.0.2.1"]), sender)
    got = Answer(sock.recv(65535))
    assert got.addresses == ["192.0.2.1"]
    assert got.message[:2] == (77).to_bytes(2, "big")

    inside = Upstream(two.namespace, "127.0.0.1")
    sock = two.socket()
    sock.connect(AT)
    sock.send(make_query("example.org"))
    inside.answer("192.0.2.2")
    assert Answer(sock.recv(65535)).addresses == ["192.0.2.2"]
    inside.close()


def test_over_tcp(resolver: ResolverProcess, container: Make, upstream: Upstream) -> None:
    """Several questions on one connection, as the client asks them; the server is asked by TCP."""
    asking = container("a")
    resolver.place("a", ["x"], "10.0.0.1")
    resolver.serve(asking)
    sock = asking.socket(socket.SOCK_STREAM)
    sock.connect(AT)
    framed = b"".join(
        len(query).to_bytes(2, "big") + query
        for query in (make_query("big.example.org", identity=1), make_query("x", identity=2))
    )
    for byte in framed[:5], framed[5:]:
        sock.sendall(byte)
    accepted, _ = upstream.tcp.accept()
    with accepted:
        accepted.settimeout(PATIENCE_S)
        query = receive_framed(accepted)
        send_framed(accepted, make_answer(query, [f"192.0.2.{n}" for n in range(200)]))
    answers = {answer.message[1]: answer for answer in (Answer(receive_framed(sock)) for _ in "12")}
    assert len(answers[1].addresses) == 200
    assert answers[2].addresses == ["10.0.0.1"]
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""


def test_the_next_server_is_asked(
    resolver: ResolverProcess, container: Make, host: NetworkNamespace
) -> None:
    """When nobody listens, or a server refuses; the last refusal is passed on."""
    resolver.set_servers("nameserver 127.0.0.51\nnameserver 127.0.0.52\nnameserver 127.0.0.53\n")
    refusing, answering = Upstream(host, "127.0.0.52"), Upstream(host, HOST_SERVER)
    asking = container("a")
    resolver.serve(asking, [])
    sock = asking.socket()
    sock.connect(AT)
    for last, expected in ((0, ["192.0.2.1"]), (SERVFAIL, [])):
        sock.send(make_query("example.org"))
        refusing.answer(rcode=REFUSED)
        answering.answer("192.0.2.1", rcode=last)
        got = Answer(sock.recv(65535))
        assert (got.rcode, got.addresses) == (last, expected)
    refusing.close()
    answering.close()
    sock.send(make_query("example.org"))
    assert Answer(sock.recv(65535)).rcode == SERVFAIL


def test_internal_networks_and_names_without_a_dot_stay_inside(
    resolver: ResolverProcess, container: Make, upstream: Upstream
) -> None:
    internal, dotted = container("a"), container("b")
    resolver.serve(internal, [], leads_out=False)
    resolver.serve(dotted, [], ndots=True)
    assert internal.ask("secret.example.org").rcode == SERVFAIL
    assert internal.ask("secret.example.org", tcp=True).rcode == SERVFAIL
    assert (dotted.ask("plain").rcode, dotted.ask("plain").addresses) == (0, [])
    assert not upstream.waiting()


def test_malformed_questions_harm_nobody(resolver: ResolverProcess, container: Make) -> None:
    asking = container("a")
    resolver.place("a", ["x"], "10.0.0.1")
    resolver.serve(asking, leads_out=False)
    generator = random.Random(5)
    sock = asking.socket()
    sock.connect(AT)
    for number in range(2000):
        query = bytearray(make_query("x.y.z") + generator.randbytes(generator.randrange(40)))
        for _ in range(1 + number % 8):
            query[generator.randrange(len(query))] = generator.randrange(256)
        sock.send(query if number % 3 else generator.randbytes(number % 70))
    tcp = asking.socket(socket.SOCK_STREAM)
    tcp.connect(AT)
    tcp.sendall(generator.randbytes(3000))
    sock.send(b"")
    assert asking.ask("x").addresses == ["10.0.0.1"]
    assert asking.ask("x", tcp=True).addresses == ["10.0.0.1"]


def test_a_flood_from_one_leaves_the_others_served(
    resolver: ResolverProcess, container: Make, upstream: Upstream
) -> None:
    """Questions that nobody answers, connections that say nothing: limited for each container."""
    flooding, other = container("a"), container("b")
    resolver.place("a", ["x"], "10.0.0.1")
    resolver.serve(flooding)
    resolver.serve(other)
    before = resolver.descriptors()
    sock = flooding.socket()
    sock.connect(AT)
    refused = False
    sock.settimeout(0.2)
    for number in range(0, 6000, 20):  # on a slow machine the first ones are given up meanwhile
        for each in range(number, number + 20):
            sock.send(make_query(f"n{each}.example.org"))
        resolver.settle()
        try:
            while number >= 256 and not refused:
                refused = Answer(sock.recv(65535)).rcode == REFUSED
        except TimeoutError:
            pass
        if refused:
            break
    assert refused
    idle = [flooding.socket(socket.SOCK_STREAM) for _ in range(100)]
    for each in idle:
        each.connect(AT)
    assert other.ask("x").addresses == ["10.0.0.1"]
    assert other.ask("x", tcp=True).addresses == ["10.0.0.1"]
    resolver.settle()
    assert resolver.descriptors() <= before + 256 + 64 + 2


def test_a_connection_that_is_broken_off_is_let_go_of(
    resolver: ResolverProcess, container: Make, upstream: Upstream
) -> None:
    """Also while as many questions are under way as it may have, and nothing more is read from it."""
    asking = container("a")
    resolver.serve(asking)
    before = resolver.descriptors()
    breaking = asking.socket(socket.SOCK_STREAM)
    breaking.connect(AT)
    for number in range(OUTSTANDING_MAX):
        send_framed(breaking, make_query(f"n{number}.example.org"))
    wait_for(
        lambda: resolver.descriptors() == before + 1 + OUTSTANDING_MAX,
        "the questions to be under way",
    )
    breaking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    used_s = resolver.cpu_s()
    breaking.close()
    wait_for(lambda: resolver.descriptors() <= before, "the questions to be given up")
    assert resolver.cpu_s() - used_s < 0.5, "it was told of the end over and over"


def test_the_end_of_a_container_frees_its_network_namespace(
    resolver: ResolverProcess, container: Make
) -> None:
    resolver.settle()
    before = resolver.descriptors()
    ending = FakeContainer("e")
    resolver.serve(ending)
    assert resolver.descriptors() > before
    sock = ending.socket(socket.SOCK_STREAM)
    sock.connect(AT)
    assert resolver.ask("ping")["served"] == ["e"]
    ending.end()
    wait_until_gone(resolver, before)
    assert resolver.ask("ping")["served"] == []


def test_sockets_are_made_where_there_are_none(resolver: ResolverProcess, container: Make) -> None:
    """For a container that joins such a network while it runs, and after a resolver's death."""
    asking = container("a")
    resolver.place("a", ["x"], "10.0.0.1")
    resolver.serve(asking, sockets=False)
    assert asking.ask("x").addresses == ["10.0.0.1"]
    resolver.serve(asking, sockets=False, ndots=True)
    assert asking.ask("x").addresses == ["10.0.0.1"]
    resolver.serve(asking, sockets=False, process=2)  # it was started again
    assert asking.ask("x").addresses == ["10.0.0.1"]


def test_another_daemon_says_anew_what_there_is(resolver: ResolverProcess, container: Make) -> None:
    """Without a daemon all are served; what the next one does not mention goes."""
    kept, dropped = container("a"), container("b")
    resolver.place("a", ["kept"], "10.0.0.1")
    resolver.place("b", ["dropped"], "10.0.0.2")
    resolver.serve(kept, leads_out=False)
    resolver.serve(dropped)
    sock = kept.socket()
    sock.connect(AT)
    resolver.daemon.close()
    sock.send(make_query("dropped"))
    assert Answer(sock.recv(65535)).addresses == ["10.0.0.2"]
    resolver.reconnect()
    resolver.tell("begin")
    resolver.place("a", ["kept"], "10.0.0.1")
    resolver.serve(kept, sockets=False, leads_out=False)
    resolver.tell("end")
    resolver.settle()
    sock.send(make_query("kept"))
    assert Answer(sock.recv(65535)).addresses == ["10.0.0.1"]
    sock.send(make_query("dropped"))
    assert Answer(sock.recv(65535)).rcode == SERVFAIL


def test_it_ends_with_the_last_container_and_daemon(
    tmp_path: os.PathLike[str], host: NetworkNamespace
) -> None:
    resolver = ResolverProcess(str(tmp_path), host)
    last = FakeContainer("a")
    resolver.place("a", ["x"], "10.0.0.1")
    resolver.serve(last)
    resolver.daemon.close()
    assert last.ask("x").addresses == ["10.0.0.1"]
    last.end()
    assert resolver.ended() == 0
    assert not os.path.exists(resolver.path)
