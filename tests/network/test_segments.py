"""One network on several bridges: whoever is where, all containers reach each other as on one bridge."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from sampan.linux import interfaces
from sampan.network import segments
from sampan.network.addressing import SubnetPlan
from sampan.network.egress import Egress
from sampan.network.egress_rules import GuardedPort
from sampan.network.firewall import Firewall
from sampan.network.machine import Machine
from sampan.network.policy import parse_policy
from sampan.network.user_bridge import BridgeOptions, UserBridge
from support.netns import NetworkNamespace, listen
from support.world import HOST_ADDRESS, INTERNET_ADDRESS, World

pytestmark = [pytest.mark.root, pytest.mark.vm]

MANY = 9  # on four bridges of three ports, cables among them
PATIENCE_S = 20.0
NEVER_S = 0.5  # what is dropped is not answered however long one waits
SUBNETS = ("10.9.0.0/24", "fd00:9::/64")


class Segmented:
    """A network with three ports a bridge, its rules, and the containers on it."""

    def __init__(self, world: World, firewall: Firewall, **options: object) -> None:
        internal = bool(options.pop("internal", False))
        plans = [
            SubnetPlan(SUBNETS[0], gateway="10.9.0.1"),
            SubnetPlan(SUBNETS[1], gateway="fd00:9::1"),
        ]
        self.network = UserBridge(
            "net",
            "ab" * 32,
            plans,
            BridgeOptions(**options),  # type: ignore[arg-type]
            internal=internal,
            owner="x",
        )
        self.world = world
        with world.host.entered():
            self.network.ensure(Machine())
            firewall.install([self.network.rules()])
        self.spaces = [world.container(self.network, str(number)) for number in range(MANY)]

    def addresses(self, *, ipv6: bool) -> list[str]:
        return [
            each.address6 if ipv6 else each.address
            for number in range(MANY)
            if (each := self.network.attachment(str(number)))
        ]


@pytest.fixture
def firewall(world: World) -> Iterator[Firewall]:
    firewall = Firewall(table="sampan-test")
    with world.host.entered():
        yield firewall
        firewall.remove()
        firewall.close()


@pytest.fixture(params=["0", "1"], ids=["unfiltered", "br_netfilter"])
def bridged(world: World, request: pytest.FixtureRequest) -> str:
    """Whether the kernel shows bridged frames to the packet filter, whose FORWARD drops what is left."""
    for name in ("iptables", "ip6tables"):
        path = f"/proc/sys/net/bridge/bridge-nf-call-{name}"
        try:
            with world.host.entered(), open(path, "w") as setting:
                setting.write(request.param)
        except FileNotFoundError:
            if request.param == "1":
                pytest.skip("needs br_netfilter")
    world.run("iptables", "-P", "FORWARD", "DROP")
    return str(request.param)


@pytest.fixture(autouse=True)
def _few_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "PORTS", 3)


def servers(spaces: Sequence[NetworkNamespace], addresses: Sequence[str]) -> list[socket.socket]:
    found = []
    for space, address in zip(spaces, addresses, strict=True):
        with space.entered():
            found.append(listen(address))
    return found


def peer_seen(client: NetworkNamespace, server: socket.socket, patience_s: float) -> str:
    """The client's address as the server sees it; empty when it is not reached."""
    with client.entered():
        sock = socket.socket(server.family)
    with sock:
        sock.settimeout(patience_s)
        try:
            sock.connect(server.getsockname())
        except (TimeoutError, OSError):
            return ""
        accepted, peer = server.accept()
        with accepted:
            accepted.sendall(b"x")
            assert sock.recv(1) == b"x"
        return str(peer[0])


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("internal", [False, True], ids=["outward", "internal"])
def test_all_reach_all(
    world: World, firewall: Firewall, bridged: str, internal: bool, ipv6: bool
) -> None:
    """With the client's own address, whichever bridges the two are on."""
    made = Segmented(world, firewall, internal=internal)
    assert len([name for name in world.links() if name.startswith(segments.PREFIX)]) >= 3
    addresses = made.addresses(ipv6=ipv6)
    listening = servers(made.spaces, addresses)
    failed = [
        (number, other, seen)
        for number, space in enumerate(made.spaces)
        for other, server in enumerate(listening)
        if number != other
        and (seen := peer_seen(space, server, PATIENCE_S if not number else 5)) != addresses[number]
    ]
    for server in listening:
        server.close()
    assert not failed
    with world.host.entered():
        made.network.remove()


def test_outside_they_have_the_hosts_address(
    world: World, firewall: Firewall, bridged: str
) -> None:
    """Also where a frame has passed another bridge's filter on its way to the first one."""
    made = Segmented(world, firewall)
    server = world.server(world.internet, INTERNET_ADDRESS)
    for space in made.spaces:
        assert peer_seen(space, server, PATIENCE_S) == HOST_ADDRESS
    with world.host.entered():
        made.network.remove()


def test_only_the_first_bridge_answers_for_the_gateway(
    world: World, firewall: Firewall, bridged: str
) -> None:
    made = Segmented(world, firewall)
    with world.host.entered():
        first = interfaces.hardware_address(made.network.bridge)
    for space in made.spaces:
        with space.entered():
            subprocess.run(["ping", "-c", "1", "-W", "20", "10.9.0.1"], check=True)
            shown = subprocess.run(
                ["ip", "-j", "neigh", "show", "10.9.0.1"], capture_output=True, check=True
            )
        assert [row["lladdr"] for row in json.loads(shown.stdout)] == [first]
    with world.host.entered():
        made.network.remove()


def test_apart_without_icc(world: World, firewall: Firewall, bridged: str) -> None:
    """On one bridge and on two."""
    made = Segmented(world, firewall, icc=False)
    addresses = made.addresses(ipv6=False)
    listening = servers(made.spaces, addresses)
    client, *others = made.spaces
    assert not [
        number for number, server in enumerate(listening[1:]) if peer_seen(client, server, NEVER_S)
    ]
    assert not peer_seen(others[-1], listening[0], NEVER_S)
    for server in listening:
        server.close()
    with world.host.entered():
        made.network.remove()


def test_policies_hold_and_let_answers_through(
    world: World, firewall: Firewall, bridged: str
) -> None:
    """A container on the last bridge may open nothing; who connects to it is answered."""
    made = Segmented(world, firewall)
    last = str(MANY - 1)
    attachment = made.network.attachment(last)
    assert attachment is not None
    assert attachment.endpoint is not None
    with world.host.entered():
        egress = Egress(table="sampan-test")
        egress.put(
            [
                GuardedPort(
                    attachment.host_port,
                    attachment.endpoint.mac,
                    interfaces.hardware_address(made.network.bridge),
                    attachment.address,
                    attachment.address6,
                    (parse_policy("none"),),
                )
            ]
        )
    addresses = made.addresses(ipv6=False)
    listening = servers(made.spaces, addresses)
    outside = world.server(world.internet, INTERNET_ADDRESS)
    guarded = made.spaces[-1]
    assert not peer_seen(guarded, outside, NEVER_S)
    assert not [server for server in listening[:-1] if peer_seen(guarded, server, NEVER_S)]
    for space, address in zip(made.spaces[:-1], addresses, strict=False):
        assert peer_seen(space, listening[-1], PATIENCE_S) == address
    for server in listening:
        server.close()
    with world.host.entered():
        egress.drop([attachment.host_port])
        made.network.remove()
