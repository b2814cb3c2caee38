"""Network policies and rates with the real daemon, from `run` to the kernel."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampan.linux import interfaces
from support.command import Result, run
from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for
from support.world import INTERNET_ADDRESS, World

pytestmark = pytest.mark.root

POLICY, RATE = "sampan.network-policy", "sampan.net-rate"
CLI = os.path.join(os.path.dirname(sys.executable), "sampan")


@pytest.fixture(autouse=True)
def _nothing_left(world: World) -> Iterator[None]:
    """The rules of policies go with the containers; looked at when the engine has stopped."""
    yield
    with world.host.entered():
        assert tables() == []


def tables() -> list[str]:
    """The tables of policies."""
    return [line for line in run(["nft", "list", "tables"]).out.splitlines() if "-policy" in line]


def question(packet: bytes) -> tuple[str, bytes]:
    """The name that a DNS packet asks for, and what follows it: type, class, more."""
    labels, offset = [], 12
    while length := packet[offset]:
        labels.append(packet[offset + 1 : offset + 1 + length].decode().lower())
        offset += 1 + length
    return ".".join(labels), packet[offset + 1 :]


class NameServer:
    """A name server of the internet: every name has its address. It notes what it was asked."""

    def __init__(self, world: World) -> None:
        self.asked: list[str] = []
        with world.internet.entered():
            self._socket = socket.socket(type=socket.SOCK_DGRAM)
            self._socket.bind((INTERNET_ADDRESS, 53))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            packet, client = self._socket.recvfrom(4096)
            if packet == b"end":
                return
            name, rest = question(packet)
            self.asked.append(name)
            is_a = rest[:2] == b"\0\1"
            head = packet[:2] + bytes([0x81, 0x80, 0, 1, 0, int(is_a), 0, 0, 0, 0])
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + socket.inet_aton(INTERNET_ADDRESS)
            end = len(packet) - len(rest) + 4
            self._socket.sendto(head + packet[12:end] + (answer if is_a else b""), client)

    def close(self, world: World) -> None:
        with world.internet.entered(), socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"end", (INTERNET_ADDRESS, 53))
        self._thread.join()
        self._socket.close()


@pytest.fixture
def name_server(world: World) -> Iterator[NameServer]:
    server = NameServer(world)
    yield server
    server.close(world)


def start(engine: SampanEngine, network: str = "default", **annotations: str) -> str:
    """A container that sleeps, with its terms; its ID."""
    created = engine.post(
        "/containers/create",
        {
            "Image": IMAGE,
            "Cmd": ["sleep", "1000"],
            "HostConfig": {
                "Annotations": {f"sampan.{name}": text for name, text in annotations.items()},
                "NetworkMode": network,
                "Dns": [INTERNET_ADDRESS],
                "CapAdd": ["NET_ADMIN", "NET_RAW"],
            },
        },
    )
    assert created.status == 201, created
    identity: str = created.json["Id"]
    started = engine.post(f"/containers/{identity}/start")
    assert started.status == 204, started
    return identity


def update(engine: SampanEngine, identity: str, **annotations: str) -> None:
    named = {f"sampan.{name}": text for name, text in annotations.items()}
    answer = engine.post(f"/containers/{identity}/update", {"Annotations": named})
    assert answer.status == 200, answer


def inside(engine: SampanEngine, identity: str, *command: str) -> Result:
    return run([CLI, "-H", f"unix://{engine.socket}", "exec", identity, *command], check=False)


def reaches(engine: SampanEngine, identity: str, host: str, server: socket.socket) -> bool:
    """Whether a program in the container can connect to the server, by name or address."""
    port = str(server.getsockname()[1])
    return inside(engine, identity, "nc", "-w", "10", host, port, "-e", "true").code == 0


def denied(engine: SampanEngine, identity: str) -> dict[tuple[str, int], int]:
    """Attempts by address or name, and port."""
    found = engine.get("/policies/denied", container=identity).json
    return {(each["Name"] or each["Address"], each["Port"]): each["Packets"] for each in found}


@pytest.mark.vm
def test_from_run_to_the_kernel(world: World, engine: SampanEngine) -> None:
    """In force from the first instruction on, changed while it runs, and over the daemon's death."""
    server = world.server(world.internet, INTERNET_ADDRESS)
    port = server.getsockname()[1]
    identity = start(engine, **{"network-policy": "none"})
    assert not reaches(engine, identity, INTERNET_ADDRESS, server)
    update(engine, identity, **{"network-policy": f"allow:{INTERNET_ADDRESS}:{port}/tcp"})
    assert reaches(engine, identity, INTERNET_ADDRESS, server)
    engine.kill()
    other = world.server(world.internet, INTERNET_ADDRESS)
    engine.start()
    assert reaches(engine, identity, INTERNET_ADDRESS, server)
    assert not reaches(engine, identity, INTERNET_ADDRESS, other)
    assert denied(engine, identity)[INTERNET_ADDRESS, other.getsockname()[1]] >= 1
    update(engine, identity, **{"network-policy": "full"})
    assert reaches(engine, identity, INTERNET_ADDRESS, other)
    assert tables() == []
    shown = engine.get(f"/containers/{identity}/json").json
    assert shown["HostConfig"]["Annotations"][POLICY] == "full"


def test_open_connections_end_when_forbidden(world: World, engine: SampanEngine) -> None:
    """And those that are still allowed go on."""
    kept, cut = (world.server(world.internet, INTERNET_ADDRESS) for _ in range(2))
    identity = start(engine)
    streams = []
    for server in (kept, cut):
        command = f"nc {INTERNET_ADDRESS} {server.getsockname()[1]} -e cat"
        inside(engine, identity, "sh", "-c", f"{command} >/dev/null 2>&1 &")
        stream, _ = server.accept()
        stream.settimeout(10)
        stream.sendall(b"one")
        assert stream.recv(3) == b"one"
        streams.append(stream)
    update(
        engine,
        identity,
        **{"network-policy": f"allow:{INTERNET_ADDRESS}:{kept.getsockname()[1]}"},
    )
    with streams[0], streams[1]:
        streams[0].sendall(b"two")
        assert streams[0].recv(3) == b"two"
        streams[1].sendall(b"two")
        streams[1].settimeout(1)
        with pytest.raises(OSError):
            assert streams[1].recv(3) == b""


@pytest.mark.vm
def test_names(world: World, engine: SampanEngine, name_server: NameServer) -> None:
    """What is allowed by name is reached when it was looked up; other names do not leave the machine."""
    server = world.server(world.internet, INTERNET_ADDRESS)
    port = server.getsockname()[1]
    identity = start(engine, **{"network-policy": f"allow:pypi.example,*.debian.example:{port}"})
    assert not reaches(engine, identity, INTERNET_ADDRESS, server), "nobody looked it up"
    assert not reaches(engine, identity, "evil.example", server)
    assert not reaches(engine, identity, "debian.example", server)
    assert name_server.asked == []
    assert (
        inside(engine, identity, "nc", "-w", "10", INTERNET_ADDRESS, "53", "-e", "true").code != 0
    )
    assert name_server.asked == [], "another resolver"
    assert reaches(engine, identity, "pypi.example", server)
    assert reaches(engine, identity, INTERNET_ADDRESS, server)
    assert set(name_server.asked) == {"pypi.example"}
    refused = denied(engine, identity)
    assert refused["evil.example", 0] >= 1
    assert refused["debian.example", 0] >= 1
    assert refused[INTERNET_ADDRESS, 53] >= 1
    update(engine, identity, **{"network-policy": f"allow:*.debian.example:{port}"})
    assert not reaches(engine, identity, INTERNET_ADDRESS, server)
    assert reaches(engine, identity, "ftp.debian.example", server)


def test_a_policy_that_comes_later_has_names_too(
    world: World, engine: SampanEngine, name_server: NameServer
) -> None:
    """Also on the default network, whose containers ask the machine's name servers until then."""
    server = world.server(world.internet, INTERNET_ADDRESS)
    identity = start(engine)
    assert reaches(engine, identity, "pypi.example", server)
    update(engine, identity, **{"network-policy": "allow:pypi.example"})
    assert reaches(engine, identity, "pypi.example", server)
    assert not reaches(engine, identity, "evil.example", server)


def test_a_networks_policy(world: World, engine: SampanEngine) -> None:
    """Of all containers in it, whatever they may themselves."""
    server = world.server(world.internet, INTERNET_ADDRESS)
    other = world.server(world.internet, INTERNET_ADDRESS)
    made = engine.post(
        "/networks/create",
        {
            "Name": "closed",
            "Labels": {POLICY: f"allow:{INTERNET_ADDRESS}:{server.getsockname()[1]}"},
        },
    )
    assert made.status == 201, made
    identity = start(engine, "closed", **{"network-policy": "full"})
    assert reaches(engine, identity, INTERNET_ADDRESS, server)
    assert not reaches(engine, identity, INTERNET_ADDRESS, other)
    refusal = engine.post("/networks/create", {"Name": "odd", "Labels": {POLICY: "some"}})
    assert refusal.status == 400
    engine.remove_containers()
    assert engine.delete("/networks/closed").status == 204


def change(engine: SampanEngine, policy: str) -> int:
    return engine.post("/networks/changing/update", {"NetworkPolicy": policy}).status


@pytest.mark.vm
def test_a_networks_policy_changes_while_containers_are_in_it(
    world: World, engine: SampanEngine
) -> None:
    """Open connections that it forbids end; it is there for the next container and the next daemon."""
    server, other = (world.server(world.internet, INTERNET_ADDRESS) for _ in range(2))
    made = engine.post("/networks/create", {"Name": "changing", "Labels": {POLICY: "full"}})
    assert made.status == 201, made
    first = start(engine, "changing")
    port = server.getsockname()[1]
    inside(engine, first, "sh", "-c", f"nc {INTERNET_ADDRESS} {port} -e cat >/dev/null 2>&1 &")
    stream, _ = server.accept()
    with stream:
        stream.sendall(b"one")
        assert stream.recv(3) == b"one"
        assert change(engine, f"allow:{INTERNET_ADDRESS}:{other.getsockname()[1]}") == 200
        stream.settimeout(1)
        with pytest.raises(OSError):
            stream.sendall(b"two")
            assert stream.recv(3) == b""
    shown = engine.get("/networks/changing").json
    assert shown["Options"][POLICY].startswith("allow:") and POLICY not in shown["Labels"]
    engine.kill()
    engine.start()
    second = start(engine, "changing")
    for identity in (first, second):
        assert not reaches(engine, identity, INTERNET_ADDRESS, server)
        assert reaches(engine, identity, INTERNET_ADDRESS, other)
    assert change(engine, "some") == 400
    assert change(engine, "") == 400
    assert engine.post("/networks/bridge/update", {"NetworkPolicy": "none"}).status == 403
    with ThreadPoolExecutor() as executor:  # the last one wins, for all of them
        assert set(executor.map(lambda text: change(engine, text), ["none", "full"] * 4)) == {200}
    told = engine.get("/networks/changing").json["Options"][POLICY]
    for identity in (first, second):
        assert reaches(engine, identity, INTERNET_ADDRESS, server) == (told == "full")
    update = [CLI, "-H", f"unix://{engine.socket}", "network", "update"]
    assert run([*update, "--network-policy", "full", "changing"]).out == "changing\n"
    assert reaches(engine, first, INTERNET_ADDRESS, server)
    engine.remove_containers()
    assert engine.delete("/networks/changing").status == 204


def test_rules_that_others_flush_come_back(world: World, engine: SampanEngine) -> None:
    server = world.server(world.internet, INTERNET_ADDRESS)
    identity = start(engine, **{"network-policy": "none"})
    run(["nft", "flush", "ruleset"])
    wait_for(lambda: len(tables()) == 2, "the rules to come back")
    assert not reaches(engine, identity, INTERNET_ADDRESS, server)


@pytest.mark.vm
def test_rates(world: World, engine: SampanEngine) -> None:
    """On the host's end of the interface, changed while it runs, gone with the container."""
    before = {link.name for link in interfaces.links()}
    identity = start(engine, **{"net-rate": "in=10mbit,out=5mbit"})
    assert limits() == ["10Mbit", "5Mbit"]
    update(engine, identity, **{"net-rate": "in=20mbit"})
    assert limits() == ["20Mbit"]
    update(engine, identity, **{"net-rate": "out=1mbit"})
    assert limits() == ["1Mbit"]
    engine.kill()
    engine.start()
    assert limits() == ["1Mbit"]
    engine.remove_containers()
    wait_for(lambda: {link.name for link in interfaces.links()} == before, "its devices to go")


def limits() -> list[str]:
    lines = run(["tc", "qdisc", "show"]).out.splitlines()
    return sorted(
        line.partition("rate ")[2].split()[0] for line in lines if line.startswith("qdisc tbf")
    )


@pytest.mark.parametrize(
    ("network", "annotations", "part"),
    [
        ("host", {POLICY: "none"}, "network policy and the network mode"),
        ("host", {RATE: "in=1mbit"}, "network rate and the network mode"),
        ("default", {POLICY: "allow:10.0.0.0/40"}, "10.0.0.0/40"),
        ("default", {RATE: "fast"}, "fast"),
    ],
)
def test_what_cannot_be_enforced_is_refused(
    engine: SampanEngine, network: str, annotations: dict[str, str], part: str
) -> None:
    answer = engine.post(
        "/containers/create",
        {"Image": IMAGE, "HostConfig": {"Annotations": annotations, "NetworkMode": network}},
    )
    assert answer.status == 400
    assert part in answer.json["message"]


def test_the_command_line(world: World, engine: SampanEngine) -> None:
    server = world.server(world.internet, INTERNET_ADDRESS)
    port = server.getsockname()[1]
    sampan = [CLI, "-H", f"unix://{engine.socket}"]
    call = ["nc", "-w", "10", INTERNET_ADDRESS, str(port), "-e", "true"]
    flags = ["--name", "box", "--network-policy", "none", "--net-rate", "in=1mbit"]
    assert run([*sampan, "run", *flags, IMAGE, *call], check=False).code == 1
    shown = run([*sampan, "network", "denied"]).out.splitlines()
    assert shown[0].split() == ["CONTAINER", "DESTINATION", "PROTOCOL", "ATTEMPTS", "LAST"]
    assert shown[1].split()[:3] == ["box", f"{INTERNET_ADDRESS}:{port}", "tcp"]
    run([*sampan, "update", "--network-policy", "full", "--net-rate", "none", "box"])
    assert run([*sampan, "start", "-a", "box"], check=False).code == 0


def test_ipv6(world: World, engine: SampanEngine) -> None:
    """Judged as IPv4 is; neighbours find each other all the same."""
    assert engine.post("/networks/create", {"Name": "six", "EnableIPv6": True}).status == 201
    identity = start(engine, "six")
    shown = engine.get(f"/containers/{identity}/json").json["NetworkSettings"]["Networks"]["six"]
    gateway = shown["IPv6Gateway"]
    server = world.server(world.host, gateway)
    assert reaches(engine, identity, gateway, server)
    update(engine, identity, **{"network-policy": "allow:0.0.0.0/0"})
    assert not reaches(engine, identity, gateway, server)
    port = server.getsockname()[1]
    assert denied(engine, identity)[gateway, port] >= 1
    update(engine, identity, **{"network-policy": f"allow:[{gateway}]:{port}"})
    assert reaches(engine, identity, gateway, server)
    engine.remove_containers()
    assert engine.delete("/networks/six").status == 204
