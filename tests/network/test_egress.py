"""Egress policies, tried from inside containers by every way around them."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from sampan.linux import interfaces, nfnetlink
from sampan.network.bridge import BridgeNetwork
from sampan.network.bridge_wishes import BridgeWishes
from sampan.network.egress import Denied, Egress
from sampan.network.egress_rules import GuardedPort, group_set
from sampan.network.policy import parse_policy
from support.netns import NetworkNamespace
from support.waiting import wait_for
from support.world import HOST_ADDRESS, INTERNET_ADDRESS, World

pytestmark = [pytest.mark.root, pytest.mark.vm]

REFUSED = errno.ECONNREFUSED
LIMIT_S = 10.0
ETH_P_ALL = 0x0003
MARK = b"a secret that leaves"


class Street:
    """Two containers, `inside` with a policy and `neighbour` without, beside `host` and `internet`."""

    def __init__(self, world: World) -> None:
        self.world = world
        with world.host.entered():
            self.network = BridgeNetwork(bridge="brpolicy", wishes=BridgeWishes(bip="10.77.0.1/24"))
            self.network.ensure()
            self.egress = Egress(table="test")
        self.inside = world.container(self.network, "inside")
        self.neighbour = world.container(self.network, "neighbour")
        self.port = self.guarded("inside", "none")
        self.internet = world.server(world.internet, INTERNET_ADDRESS)
        self.on_host = world.server(world.host, HOST_ADDRESS)
        self.address = self.port.address
        self.neighbours_address = self.guarded("neighbour", "none").address

    def guarded(self, container: str, *policies: str) -> GuardedPort:
        attachment = self.network.attachment(container)
        assert attachment is not None
        assert attachment.endpoint is not None
        with self.world.host.entered():
            bridge_mac = interfaces.hardware_address(self.network.bridge)
        return GuardedPort(
            host_port=attachment.host_port,
            mac=attachment.endpoint.mac,
            bridge_mac=bridge_mac,
            address=attachment.address,
            address6="",
            policies=tuple(map(parse_policy, policies)),
        )

    def allow(self, *policies: str) -> None:
        self.port = self.guarded("inside", *policies)
        with self.world.host.entered():
            self.egress.put([self.port])

    def bind(self, number: int, address: str, timeout_ms: int = 60_000) -> None:
        """As the resolver does: an address belongs to the names of a group."""
        named = [group for group in self.port.policies[0].groups if group.names][number]
        item = nfnetlink.Element(socket.inet_aton(address), timeout_ms=timeout_ms)
        name = f"{group_set(self.port.host_port, named)}.4"
        with self.world.host.entered():
            nfnetlink.transact(
                [nfnetlink.new_element(nfnetlink.NFPROTO_INET, self.egress.table, name, [item])]
            )

    def denied(self) -> list[Denied]:
        with self.world.host.entered():
            return self.egress.denied(self.port.host_port)

    def close(self) -> None:
        with self.world.host.entered():
            self.egress.remove()
            self.egress.close()
            self.network.remove()


@pytest.fixture
def street() -> Iterator[Street]:
    world = World()
    try:
        street = Street(world)
        try:
            yield street
        finally:
            street.close()
    finally:
        world.close()


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def connect(where: NetworkNamespace, address: str, port: int) -> int:
    """0, or the errno that connecting from there ends with."""
    with where.entered(), socket.socket() as client:
        client.settimeout(LIMIT_S)
        return client.connect_ex((address, port))


def open_connection(
    where: NetworkNamespace, server: socket.socket
) -> tuple[socket.socket, socket.socket]:
    with where.entered():
        client = socket.create_connection(server.getsockname(), LIMIT_S)
    served, _ = server.accept()
    served.settimeout(LIMIT_S)
    return client, served


def test_none_lets_nothing_out_and_answers_through(street: Street) -> None:
    """Neither to the internet, nor the host, nor a neighbour; who comes in is answered."""
    server = street.world.server(street.inside, street.address)
    neighbour = street.world.server(street.neighbour, street.neighbours_address)
    street.allow("none")
    assert connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == REFUSED
    assert connect(street.inside, HOST_ADDRESS, port_of(street.on_host)) == REFUSED
    assert connect(street.inside, street.neighbours_address, port_of(neighbour)) == REFUSED
    for where in (street.neighbour, street.world.host):
        client, served = open_connection(where, server)
        with client, served:
            served.sendall(b"answer")
            assert client.recv(6) == b"answer"
    assert connect(street.neighbour, INTERNET_ADDRESS, port_of(street.internet)) == 0
    denied = {(entry.address, entry.protocol, entry.port): entry for entry in street.denied()}
    for address, served_at in (
        (INTERNET_ADDRESS, street.internet),
        (HOST_ADDRESS, street.on_host),
        (street.neighbours_address, neighbour),
    ):
        entry = denied[address, "tcp", port_of(served_at)]
        assert entry.packets >= 1
        assert abs(time.time() - entry.last_s) < 60


@pytest.mark.parametrize("bridged_packets_pass_iptables", ["0", "1"])
def test_only_what_is_listed(street: Street, bridged_packets_pass_iptables: str) -> None:
    """Subnets and ports, whichever way the kernel was told to treat bridged packets."""
    with street.world.host.entered():
        try:
            with open("/proc/sys/net/bridge/bridge-nf-call-iptables", "w") as setting:
                setting.write(bridged_packets_pass_iptables)
        except FileNotFoundError:  # br_netfilter is a module and not loaded: as "0"
            if bridged_packets_pass_iptables == "1":
                pytest.skip("needs the kernel's br_netfilter")
    neighbour = street.world.server(street.neighbour, street.neighbours_address)
    other = street.world.server(street.neighbour, street.neighbours_address)
    street.allow(f"allow:198.51.100.0/31,{street.neighbours_address}:{port_of(neighbour)}/tcp")
    assert connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == 0
    assert connect(street.inside, street.neighbours_address, port_of(neighbour)) == 0
    assert connect(street.inside, street.neighbours_address, port_of(other)) == REFUSED
    assert connect(street.inside, HOST_ADDRESS, port_of(street.on_host)) == REFUSED


def test_both_policies_have_to_allow(street: Street) -> None:
    """Of a network with a policy and a container with one."""
    street.allow("allow:198.51.100.0/24", f"allow:{INTERNET_ADDRESS}")
    assert connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == 0
    assert connect(street.inside, HOST_ADDRESS, port_of(street.on_host)) == REFUSED
    street.allow("full", "none")
    assert connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == REFUSED


def test_addresses_of_names(street: Street) -> None:
    """They are reached as long as the resolver says so; a connection that is open by then goes on."""
    street.allow(f"allow:pypi.org:{port_of(street.internet)},other.example")
    assert connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == REFUSED
    street.bind(1, HOST_ADDRESS)
    assert connect(street.inside, HOST_ADDRESS, port_of(street.on_host)) == REFUSED, "another port"
    street.bind(1, INTERNET_ADDRESS, timeout_ms=1500)
    client, served = open_connection(street.inside, street.internet)
    with client, served:
        wait_for(
            lambda: connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == REFUSED,
            "the address to be forgotten",
        )
        client.sendall(b"still here")
        assert served.recv(10) == b"still here"
    street.bind(0, INTERNET_ADDRESS)
    assert connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == 0


def test_what_stays_in_a_policy_stays_reachable(street: Street) -> None:
    """A live change does not forget the addresses of names that it does not touch."""
    street.allow("allow:pypi.org")
    street.bind(0, INTERNET_ADDRESS)
    street.allow("allow:pypi.org,10.0.0.0/8:443")
    assert connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == 0
    street.allow("allow:example.org")
    assert connect(street.inside, INTERNET_ADDRESS, port_of(street.internet)) == REFUSED


def test_no_way_around(street: Street) -> None:
    """Root in there, with all capabilities: other protocols, addresses, frames of its own making."""
    street.allow("none")
    with street.inside.entered(), socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(LIMIT_S)
        sock.connect((INTERNET_ADDRESS, 53))
        sock.send(b"tunnel")
        with pytest.raises(OSError) as refusal:
            sock.recv(1)
    assert refusal.value.errno == errno.EHOSTUNREACH
    assert frames_through(street) == []
    with street.world.host.entered():
        street.egress.drop([street.port.host_port])
    assert len(frames_through(street)) > 5, "they arrive where there is no policy"


def frames_through(street: Street) -> list[bytes]:
    """Those of the evasions that reach the neighbour."""
    with street.neighbour.entered():
        received = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with received:
        received.settimeout(LIMIT_S)
        to = mac_bytes(street.guarded("neighbour", "none").mac)
        with (
            street.inside.entered(),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw,
        ):
            raw.bind(("eth0", ETH_P_ALL))
            own = mac_bytes(street.port.mac)
            for frame in evasions(street, own, to):
                raw.send(frame)
            raw.send(to + own + b"\x08\x06" + arp_request(street, own))
        # Frames keep their order, so whatever came before the permitted one came through.
        through = []
        while True:
            frame = received.recv(2048)
            if frame[6:14] == own + b"\x08\x06" and MARK not in frame:
                return through
            if MARK in frame:
                through.append(frame)


def arp_request(street: Street, own: bytes) -> bytes:
    asked = socket.inet_aton(street.neighbours_address)
    head = b"\x00\x01\x08\x00\x06\x04\x00\x01"
    return head + own + socket.inet_aton(street.address) + b"\0" * 6 + asked


def evasions(street: Street, own: bytes, to: bytes) -> list[bytes]:
    """Frames to a neighbour, each with the mark in it."""
    neighbours = street.neighbours_address
    gateway_mac = mac_bytes(street.port.bridge_mac)
    plain = udp_packet(street.address, neighbours)
    stolen = udp_packet("10.77.0.200", neighbours)
    ipv6 = (
        b"\x60\0\0\0"
        + struct.pack(">HBB", 8 + len(MARK), 17, 64)
        + b"\xfe\x80"
        + b"\0" * 13
        + b"\1"
    )
    ipv6 += b"\xfe\x80" + b"\0" * 13 + b"\2" + struct.pack(">HHHH", 9, 9, 8 + len(MARK), 0) + MARK
    return [
        to + own + b"\x08\x00" + plain,  # straight to the neighbour
        to + gateway_mac + b"\x08\x00" + plain,  # as if from the bridge
        to + b"\x02\0\0\0\0\x09" + b"\x08\x00" + plain,  # as if from somebody else
        to + own + b"\x08\x00" + stolen,  # another's address
        b"\xff" * 6 + own + b"\x08\x00" + plain,  # to all
        b"\x01\x00\x5e\0\0\x01" + own + b"\x08\x00" + plain,  # to a group
        to + own + b"\x81\x00\x00\x05\x08\x00" + plain,  # in a VLAN
        to + own + b"\x88\xa8\x00\x05\x81\x00\x00\x06\x08\x00" + plain,  # in a VLAN in a VLAN
        to + own + b"\x86\xdd" + ipv6,  # IPv6, which this network does not have
        to + own + b"\x88\xb5" + MARK,  # no IP at all
        to
        + own
        + b"\x08\x06"
        + b"\0\1\x08\0\6\4\0\2"
        + b"\2" * 6
        + b"\x0a\x4d\0\1"
        + MARK,  # ARP, lying
    ]


def udp_packet(source: str, destination: str) -> bytes:
    """IPv4 with its checksum; UDP without one."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(MARK), 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:]
    return head + struct.pack(">HHHH", 9, 9, 8 + len(MARK), 0) + MARK


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
