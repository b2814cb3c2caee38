"""Published ports on a real kernel: who reaches them, past which rules, and what the server sees."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from sampan.linux import interfaces
from sampan.network.bridge import BridgeNetwork
from sampan.network.published import PublishedRules
from sampan.network.published_tables import Forward
from support.netns import NetworkNamespace, listen, reach, wait_for
from support.world import HOST_ADDRESS, INTERNET_ADDRESS, World

pytestmark = [pytest.mark.root, pytest.mark.vm]

HOST_ADDRESS6 = "2001:db8::2"
INTERNET_ADDRESS6 = "2001:db8::1"
CONTAINER_ADDRESS6 = "fd00:30::2"
DROPPED_S = 1.0  # what is dropped on the way is not answered however long one waits

Rules = Callable[..., PublishedRules]


class Published:
    """A container with a server behind a port of the host."""

    def __init__(self, world: World, network: BridgeNetwork) -> None:
        self.world = world
        self.network = network
        self.container = world.container(network, "web")
        attachment = network.attachment("web")
        assert attachment is not None
        self.address = attachment.address
        self.gateway = network.gateway
        with self.container.entered():
            self.server = listen(self.address, 80)
            self.server.settimeout(30)

    def forward(self, host_port: int = 8080, host_address: str = "") -> Forward:
        return Forward("tcp", host_address, host_port, self.address, 80)

    def seen_from(
        self, where: NetworkNamespace, address: str = HOST_ADDRESS, port: int = 8080
    ) -> str:
        """The address that the server sees of a client there."""
        return reach(self.server, where, 30, at=(address, port))

    def dropped_from(self, where: NetworkNamespace, port: int = 8080) -> bool:
        try:
            reach(self.server, where, DROPPED_S, at=(HOST_ADDRESS, port))
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.server.close()


@pytest.fixture
def web(world: World, bridge: Callable[..., BridgeNetwork]) -> Iterator[Published]:
    published = Published(world, bridge())
    yield published
    published.close()


@pytest.fixture
def rules(world: World) -> Iterator[Rules]:
    """Makes the rules of an engine on the world's host."""
    made: list[PublishedRules] = []

    def make(*, respect_firewall: bool = True) -> PublishedRules:
        published = PublishedRules("sampan", respect_firewall=respect_firewall)
        made.append(published)
        with world.host.entered():
            published.open(["sampan0"])
        return published

    yield make
    for published in made:
        published.close()


def drop_at_host(world: World, port: int = 8080) -> None:
    """What ufw, firewalld or an administrator does: incoming packets for the port are dropped."""
    chain = "{ type filter hook input priority filter; policy accept; }"
    world.run("nft", f"add table inet admin; add chain inet admin input {chain}")
    world.run("nft", f'add rule inet admin input iifname "wan0" tcp dport {port} drop')


@pytest.mark.parametrize("respectful", [True, False], ids=["behind the firewall", "past it"])
def test_the_server_sees_the_client(
    world: World, web: Published, rules: Rules, respectful: bool
) -> None:
    """From outside its own address; of the host by 127.0.0.1 the bridge's."""
    published = rules(respect_firewall=respectful)
    with world.host.entered():
        published.add([web.forward()])
    assert published.warnings == []
    assert web.seen_from(world.internet) == INTERNET_ADDRESS
    assert web.seen_from(world.host) == HOST_ADDRESS
    assert web.seen_from(world.host, "127.0.0.1") == web.gateway


def test_the_hosts_rules_for_incoming_packets_count(
    world: World, web: Published, rules: Rules
) -> None:
    """A drop rule blocks outside access to the port, and to no other; not the host's own."""
    published = rules()
    with world.host.entered():
        published.add([web.forward(), web.forward(8081)])
    drop_at_host(world)
    assert web.dropped_from(world.internet)
    assert web.seen_from(world.internet, port=8081) == INTERNET_ADDRESS
    assert web.seen_from(world.host, "127.0.0.1") == web.gateway
    world.run("nft", "delete table inet admin")
    assert web.seen_from(world.internet) == INTERNET_ADDRESS


def test_docker_s_way_passes_by_them(world: World, web: Published, rules: Rules) -> None:
    published = rules(respect_firewall=False)
    with world.host.entered():
        published.add([web.forward()])
    drop_at_host(world)
    assert web.seen_from(world.internet) == INTERNET_ADDRESS


def test_a_host_that_accepts_nothing_and_filters_by_reverse_path(
    world: World, web: Published, rules: Rules
) -> None:
    """With `policy drop` an accepted port is reached; strict reverse path filtering is no obstacle."""
    with (
        world.host.entered(),
        open("/proc/sys/net/ipv4/conf/all/rp_filter", "w", encoding="ascii") as setting,
    ):
        setting.write("1")
    published = rules()
    with world.host.entered():
        published.add([web.forward(), web.forward(8081)])
    chain = "{ type filter hook input priority filter; policy drop; }"
    world.run("nft", f"add table inet admin; add chain inet admin input {chain}")
    world.run("nft", "add rule inet admin input ct state established,related accept")
    world.run("nft", "add rule inet admin input tcp dport 8081 accept")
    assert web.seen_from(world.internet, port=8081) == INTERNET_ADDRESS
    assert web.dropped_from(world.internet)


def test_an_address_of_the_host(world: World, web: Published, rules: Rules) -> None:
    """A port published at 127.0.0.1 is the host's alone; at another address it is not at 127.0.0.1."""
    published = rules()
    with world.host.entered():
        published.add([web.forward(8080, "127.0.0.1"), web.forward(8081, HOST_ADDRESS)])
    assert web.seen_from(world.host, "127.0.0.1") == web.gateway
    with pytest.raises(ConnectionRefusedError):
        web.seen_from(world.internet)
    assert web.seen_from(world.internet, port=8081) == INTERNET_ADDRESS
    with pytest.raises(ConnectionRefusedError):
        web.seen_from(world.host, "127.0.0.1", 8081)


def test_the_hosts_loopback_is_out_of_reach_for_containers(
    world: World, web: Published, rules: Rules
) -> None:
    """Though answers to 127.0.0.1 come in by the bridge, and the container routes 127/8 outwards."""
    with world.host.entered():
        rules().add([web.forward()])
        secret = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with web.container.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with secret, client:
        secret.bind(("127.0.0.1", 0))
        with web.container.entered():
            for kind in ("127.0.0.1", "127.0.0.0/8"):
                ip(f"route delete table local local {kind} dev lo")
            ip(f"route add 127.0.0.0/8 via {web.gateway} dev eth0 src {web.address}")
            path = "/proc/sys/net/ipv4/conf/eth0/route_localnet"
            with open(path, "w", encoding="ascii") as setting:
                setting.write("1")
        client.bind((web.address, 0))
        client.sendto(b"dropped", secret.getsockname())
        world.run("nft", "flush chain ip sampan guard")
        client.sendto(b"without the guard", secret.getsockname())
        secret.settimeout(30)
        assert secret.recv(100) == b"without the guard"


def test_a_neighbour_and_the_container_itself(world: World, web: Published, rules: Rules) -> None:
    """By the host's address, too: of both the server sees the bridge's address."""
    with world.host.entered():
        for switch in ("iptables", "ip6tables"):
            # Frames between ports are not to pass the rules twice here; the engine's tests have that.
            path = f"/proc/sys/net/bridge/bridge-nf-call-{switch}"
            try:
                with open(path, "w", encoding="ascii") as setting:
                    setting.write("0")
            except FileNotFoundError:
                continue
        rules().add([web.forward()])
    neighbour = world.container(web.network, "neighbour")
    assert web.seen_from(neighbour) == web.gateway
    assert web.seen_from(web.container) == web.gateway


def test_datagrams(world: World, web: Published, rules: Rules) -> None:
    """Both ways, with the client's address; large ones, which come in pieces, too."""
    with world.host.entered():
        rules().add([Forward("udp", "", 5353, web.address, 53)])
    with web.container.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with world.internet.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind((web.address, 53))
        server.settimeout(30)
        client.settimeout(30)
        client.connect((HOST_ADDRESS, 5353))
        for size in (1, 20_000, 100):
            client.send(bytes(size))
            data, peer = server.recvfrom(65536)
            assert (len(data), peer[0]) == (size, INTERNET_ADDRESS)
            server.sendto(data, peer)
            assert len(client.recv(65536)) == size


def test_ipv6(world: World, web: Published, rules: Rules) -> None:
    """The same by IPv6, in front of the same rules of the host."""
    with world.host.entered():
        interfaces.add_address("wan0", f"{HOST_ADDRESS6}/64")
        interfaces.add_address("sampan0", "fd00:30::1/64")
        with open("/proc/sys/net/ipv6/conf/all/forwarding", "w", encoding="ascii") as setting:
            setting.write("1")
    with world.internet.entered():
        interfaces.add_address("wan", f"{INTERNET_ADDRESS6}/64")
    with web.container.entered():
        interfaces.add_address("eth0", f"{CONTAINER_ADDRESS6}/64")
        server = listen(CONTAINER_ADDRESS6, 80)
    with server:
        server.settimeout(30)
        with world.host.entered():
            rules().add([Forward("tcp", "", 8080, CONTAINER_ADDRESS6, 80)])
        with web.container.entered():
            ip("-6 route add default via fd00:30::1")
        seen = reach(server, world.internet, 30, at=(HOST_ADDRESS6, 8080))
        assert seen == INTERNET_ADDRESS6
        assert reach(server, world.host, 30, at=(HOST_ADDRESS6, 8080)) == HOST_ADDRESS6
        drop_at_host(world)
        with pytest.raises(TimeoutError):
            reach(server, world.internet, DROPPED_S, at=(HOST_ADDRESS6, 8080))


def ip(command: str) -> None:
    """The command in the present network namespace."""
    subprocess.run(["ip", *command.split()], check=True)


def test_a_later_daemon_takes_the_rules_over(world: World, web: Published, rules: Rules) -> None:
    """A connection goes on; what nobody claims is closed."""
    former = rules()
    with world.host.entered():
        former.add([web.forward(8080), web.forward(8081)])
    with world.internet.entered():
        client = socket.socket()
    with client:
        client.settimeout(30)
        client.connect((HOST_ADDRESS, 8080))
        accepted, _ = web.server.accept()
        with accepted:
            former.close()
            later = rules()
            with world.host.entered():
                later.add([web.forward(8080)])
                later.settle()
            accepted.sendall(b"still here")
            assert client.recv(10) == b"still here"
    assert web.seen_from(world.internet) == INTERNET_ADDRESS
    with pytest.raises(ConnectionRefusedError):
        web.seen_from(world.internet, port=8081)


def test_another_container_has_the_port_of_a_former_one(
    world: World, web: Published, rules: Rules
) -> None:
    former = rules()
    with world.host.entered():
        former.add([Forward("tcp", "", 8080, "172.30.0.99", 80)])
        later = rules()
        later.add([web.forward()])
        later.settle()
    assert web.seen_from(world.internet) == INTERNET_ADDRESS


@pytest.mark.parametrize("respectful", [True, False], ids=["behind the firewall", "past it"])
def test_another_setting_replaces_the_rules(
    world: World, web: Published, rules: Rules, respectful: bool
) -> None:
    with world.host.entered():
        rules(respect_firewall=not respectful).add([web.forward()])
        rules(respect_firewall=respectful).add([web.forward()])
    drop_at_host(world)
    assert web.dropped_from(world.internet) == respectful


def test_flushed_rules_come_back_with_the_networks(
    world: World, web: Published, rules: Rules
) -> None:
    """`nft flush ruleset` of somebody else, and the loop deleted behind our back."""
    published = rules()
    web.network.firewall.published = published
    with world.host.entered():
        published.add([web.forward()])
        assert web.network.firewall.intact()
        world.run("nft", "flush", "ruleset")
        assert not web.network.firewall.intact()
        web.network.ensure()
        assert web.network.firewall.intact()
    assert web.seen_from(world.internet) == INTERNET_ADDRESS
    with world.host.entered():
        world.run("ip", "link", "delete", "sampan-li")
        assert not web.network.firewall.intact()
        web.network.ensure()
    assert web.seen_from(world.internet) == INTERNET_ADDRESS


def test_nothing_is_left(world: World, web: Published, rules: Rules) -> None:
    published = rules()
    with world.host.entered():
        before = set(world.links())
        published.add([web.forward(), web.forward(8081, HOST_ADDRESS)])
        published.drop([web.forward(), web.forward(8081, HOST_ADDRESS)])
        published.drop([web.forward()])
        with pytest.raises(ConnectionRefusedError):
            web.seen_from(world.internet)
        published.remove()
        wait_for(lambda: set(world.links()) == before, "the loop is gone")
        assert world.run("nft", "list", "tables") == "table inet sampan\n"
        published.remove()


def test_a_thousand_ports(world: World, web: Published, rules: Rules) -> None:
    """Each is its own small change; the last works as the first."""
    published = rules()
    with world.host.entered():
        for number in range(1000):
            published.add([web.forward(10_000 + number)])
    assert web.seen_from(world.internet, port=10_000) == INTERNET_ADDRESS
    assert web.seen_from(world.internet, port=10_999) == INTERNET_ADDRESS
    with world.host.entered():
        published.drop([web.forward(10_000 + number) for number in range(1000)])
    with pytest.raises(ConnectionRefusedError):
        web.seen_from(world.internet, port=10_500)


@pytest.mark.parametrize("respectful", [True, False], ids=["behind the firewall", "past it"])
@pytest.mark.parametrize("host_address", ["", "::1"])
@pytest.mark.parametrize("live", [False, True], ids=["with the rules", "to the rules"])
def test_the_ipv6_loopback(
    world: World, web: Published, rules: Rules, respectful: bool, host_address: str, live: bool
) -> None:
    """Both ways, streams and datagrams, large ones too; whether or not bridged packets are filtered."""
    server, client6 = six_server(world, web), socket.SOCK_DGRAM
    forwards = [
        Forward(protocol, host_address, 8080, CONTAINER_ADDRESS6, 80) for protocol in ("tcp", "udp")
    ]
    with server, world.host.entered(), socket.socket(socket.AF_INET6, client6) as client:
        published = rules(respect_firewall=respectful)
        if live:
            published.add([Forward("tcp", "", 1, web.address, 1)])
        published.add(forwards)
        assert published.warnings == []
        seen = reach(server, world.host, 30, at=("::1", 8080))
        assert seen.startswith("fd")
        with world.host.entered():
            stream = socket.create_connection(("::1", 8080), 30)
        accepted, _ = server.accept()
        with stream, accepted:
            accepted.settimeout(30)
            sender = threading.Thread(target=accepted.sendall, args=(bytes(1 << 20),))
            sender.start()
            assert received(stream, 1 << 20) == 1 << 20
            sender.join()
        with web.container.entered():
            datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with datagrams:
            datagrams.settimeout(30)
            datagrams.bind((CONTAINER_ADDRESS6, 80))
            client.settimeout(30)
            client.sendto(b"question", ("::1", 8080))
            _, sender_address = datagrams.recvfrom(100)
            datagrams.sendto(b"answer", sender_address)
            assert client.recvfrom(100)[0] == b"answer"
        published.drop(forwards)
        with pytest.raises(ConnectionRefusedError):
            reach(server, world.host, 30, at=("::1", 8080))


def test_the_addresses_within_the_loop_lead_nowhere(
    world: World, web: Published, rules: Rules
) -> None:
    """Containers and others do not reach what is published at ::1 alone, nor make packets go round."""
    with six_server(world, web), world.host.entered():
        published = rules()
        published.add([Forward("tcp", "::1", 8080, CONTAINER_ADDRESS6, 80)])
        routes = world.run("ip", "-6", "route", "show")
        inner = [line.split()[0] for line in routes.splitlines() if "sampan-l" in line]
        inner = [address for address in inner if not address.startswith("fe80")]
        assert len(inner) == 2
        for where in (web.container, world.internet):
            for address in [*inner, HOST_ADDRESS6]:
                with where.entered():
                    if where is world.internet and address != HOST_ADDRESS6:
                        ip(f"-6 route add {address} via {HOST_ADDRESS6}")
                    client = socket.socket(socket.AF_INET6)
                with client:
                    client.settimeout(DROPPED_S)
                    with pytest.raises(OSError):
                        client.connect((address, 8080))
        counted = world.run("cat", "/proc/net/dev").splitlines()
        [loop] = [line.split() for line in counted if "sampan-li:" in line]
        assert int(loop[2]) < 20, "packets that went through the loop"


def six_server(world: World, web: Published) -> socket.socket:
    """A server in the container at its IPv6 address; the world has IPv6, too."""
    with world.host.entered():
        interfaces.add_address("wan0", f"{HOST_ADDRESS6}/64")
        interfaces.add_address("sampan0", "fd00:30::1/64")
        for name in ("all", "default"):
            with open(f"/proc/sys/net/ipv6/conf/{name}/forwarding", "w") as setting:
                setting.write("1")
    with world.internet.entered():
        interfaces.add_address("wan", f"{INTERNET_ADDRESS6}/64")
    with web.container.entered():
        interfaces.add_address("eth0", f"{CONTAINER_ADDRESS6}/64")
        ip("-6 route add default via fd00:30::1")
        server = listen(CONTAINER_ADDRESS6, 80)
    server.settimeout(30)
    wait_for(lambda: is_a_neighbour(server, world), "the container to be found on its bridge")
    return server


def is_a_neighbour(server: socket.socket, world: World) -> bool:
    """Does the host reach the container by the bridge? Neighbour discovery gives up after three seconds,
    less than a busy kernel may take to let packets through to a bridge's new port."""
    try:
        reach(server, world.host, 30)
    except OSError as error:
        if error.errno != errno.EHOSTUNREACH:
            raise
        return False
    return True


def received(stream: socket.socket, size: int) -> int:
    """How many bytes come, up to `size`."""
    count = 0
    while count < size and (chunk := stream.recv(65536)):
        count += len(chunk)
    return count


@pytest.mark.parametrize("respectful", [True, False], ids=["behind the firewall", "past it"])
def test_sctp(world: World, web: Published, rules: Rules, respectful: bool) -> None:
    """The kernel translates it with or without sockets of the kind."""
    forward = Forward("sctp", "", 8080, web.address, 80)
    with world.host.entered():
        rules(respect_firewall=respectful).add([forward])
    with web.container.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_RAW, IPPROTO_SCTP)
    with world.internet.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_RAW, IPPROTO_SCTP)
    with server, client:
        server.settimeout(30)
        client.sendto(sctp_init(4711, 8080), (HOST_ADDRESS, 0))
        packet, peer = server.recvfrom(2048)
        assert peer[0] == INTERNET_ADDRESS
        assert packet[20:24] == struct.pack(">HH", 4711, 80)


IPPROTO_SCTP = 132


def sctp_init(source: int, destination: int) -> bytes:
    """The packet that opens an association (RFC 9260, 3.3.2)."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 7)
    head = struct.pack(">HHI", source, destination, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_two_engines(world: World, web: Published, rules: Rules) -> None:
    """Each has tables and a loop of its own; what becomes of the one is nothing to the other."""
    with six_server(world, web) as six, world.host.entered():
        published, other = rules(), PublishedRules("sampan-other", respect_firewall=True)
        other.open([])
        published.add([web.forward(8080), Forward("tcp", "::1", 8080, CONTAINER_ADDRESS6, 80)])
        other.add([web.forward(8081), Forward("tcp", "::1", 8081, CONTAINER_ADDRESS6, 80)])
        assert other.loop != published.loop
        for port in (8080, 8081):
            assert web.seen_from(world.internet, port=port) == INTERNET_ADDRESS
            assert reach(six, world.host, 30, at=("::1", port)).startswith("fd")
        world.run("nft", "flush", "ruleset")
        assert (published.intact(), other.intact()) == (False, False)
        published.install()
        other.install()
        other.remove()
        assert published.intact()
        assert web.seen_from(world.internet) == INTERNET_ADDRESS
        assert reach(six, world.host, 30, at=("::1", 8080)).startswith("fd")
        with pytest.raises(ConnectionRefusedError):
            reach(six, world.host, 30, at=("::1", 8081))


@pytest.mark.parametrize(
    ("respectful", "check", "passes"),
    [(True, "iif", False), (True, "", True), (False, "iif", True)],
    ids=["strict", "loose", "strict, past the firewall"],
)
def test_filtering_of_ipv6_sources(
    world: World, web: Published, rules: Rules, respectful: bool, check: str, passes: bool
) -> None:
    """firewalld's rule for the reverse path: what comes in by the loop is not routed there."""
    key = "saddr . mark . iif" if check else "saddr . mark"
    world.run("nft", "add table inet firewalld")
    world.run(
        "nft",
        "add chain inet firewalld filter_PREROUTING "
        "{ type filter hook prerouting priority filter + 10; }",
    )
    world.run(
        "nft",
        f"add rule inet firewalld filter_PREROUTING meta nfproto ipv6 fib {key} oif missing drop",
    )
    with six_server(world, web) as server, world.host.entered():
        rules(respect_firewall=respectful).add([Forward("tcp", "", 8080, CONTAINER_ADDRESS6, 80)])
        assert reach(server, world.host, 30, at=("::1", 8080)).startswith("fd")
        if passes:
            seen = reach(server, world.internet, 30, at=(HOST_ADDRESS6, 8080))
            assert seen == INTERNET_ADDRESS6
        else:
            with pytest.raises(TimeoutError):
                reach(server, world.internet, DROPPED_S, at=(HOST_ADDRESS6, 8080))
