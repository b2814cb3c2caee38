"""What a container on the bridge network reaches, and what reaches it: on a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from sampan.network.bridge import BridgeNetwork
from support.netns import NetworkNamespace, reach, wait_for
from support.world import HOST_ADDRESS, INTERNET_ADDRESS, World

pytestmark = [pytest.mark.root]

MakeBridge = Callable[..., BridgeNetwork]


def address_of(network: BridgeNetwork, container_id: str) -> str:
    attachment = network.attachment(container_id)
    assert attachment is not None and attachment.endpoint is not None
    return attachment.endpoint.addresses[0].partition("/")[0]


@pytest.mark.vm
def test_a_container_reaches_the_host_its_neighbour_and_the_internet(
    world: World, bridge: MakeBridge
) -> None:
    """The host and a neighbour see the container's own address, the internet the host's."""
    network = bridge()
    one = world.container(network, "one")
    two = world.container(network, "two")
    at_host = world.server(world.host, network.gateway)
    at_two = world.server(two, address_of(network, "two"))
    outside = world.server(world.internet, INTERNET_ADDRESS)

    assert reach(at_host, one) == address_of(network, "one")
    assert reach(at_two, one) == address_of(network, "one")
    assert reach(outside, one) == HOST_ADDRESS
    assert reach(at_two, world.host) == network.gateway


def test_udp_answers_come_back_through_masquerading(world: World, bridge: MakeBridge) -> None:
    network = bridge()
    container = world.container(network, "c")
    with world.internet.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with container.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.settimeout(30)
        client.settimeout(30)
        server.bind((INTERNET_ADDRESS, 0))
        client.sendto(b"question", server.getsockname())
        question, peer = server.recvfrom(100)
        assert (question, peer[0]) == (b"question", HOST_ADDRESS)
        server.sendto(b"answer", peer)
        assert client.recv(100) == b"answer"


def test_the_outside_does_not_reach_a_container(world: World, bridge: MakeBridge) -> None:
    """Somebody on the host's network who routes to the subnet gets no connection."""
    network = bridge()
    container = world.container(network, "c")
    server = world.server(container, address_of(network, "c"))
    with world.internet.entered():
        subprocess.run(
            ["ip", "route", "add", network.subnet, "via", HOST_ADDRESS], check=True, timeout=60
        )
    with pytest.raises(TimeoutError):
        reach(server, world.internet, timeout_s=0.3)
    assert reach(server, world.host) == network.gateway


def test_two_engines_on_one_host(world: World, bridge: MakeBridge) -> None:
    """Each has its bridge, subnet and table; their containers reach the outside, not each other."""
    first, second = bridge(), bridge(bridge="second0")
    assert first.subnet != second.subnet
    one, two = world.container(first, "one"), world.container(second, "two")
    outside = world.server(world.internet, INTERNET_ADDRESS)
    at_two = world.server(two, address_of(second, "two"))

    assert reach(outside, one) == HOST_ADDRESS
    assert reach(outside, two) == HOST_ADDRESS
    with pytest.raises(TimeoutError):
        reach(at_two, one, timeout_s=0.3)
    with world.host.entered():
        second.remove()
    assert reach(outside, one) == HOST_ADDRESS
    assert "sampan0" in world.links() and "second0" not in world.links()


def test_without_icc_neighbours_are_apart(world: World, bridge: MakeBridge) -> None:
    network = bridge(icc=False)
    one, two = world.container(network, "one"), world.container(network, "two")
    at_two = world.server(two, address_of(network, "two"))
    outside = world.server(world.internet, INTERNET_ADDRESS)

    assert reach(outside, one) == HOST_ADDRESS
    assert reach(at_two, world.host) == network.gateway
    with pytest.raises(OSError, match=r"timed out|No route"):
        reach(at_two, one, timeout_s=0.3)


def test_without_masquerading_the_own_address_is_seen(world: World, bridge: MakeBridge) -> None:
    network = bridge(masquerade=False)
    container = world.container(network, "c")
    outside = world.server(world.internet, INTERNET_ADDRESS)
    with world.internet.entered():
        subprocess.run(
            ["ip", "route", "add", network.subnet, "via", HOST_ADDRESS], check=True, timeout=60
        )
    assert reach(outside, container) == address_of(network, "c")


@pytest.mark.vm
@pytest.mark.parametrize("iptables", ["iptables-nft", "iptables-legacy"])
def test_beside_a_forward_chain_that_drops(world: World, bridge: MakeBridge, iptables: str) -> None:
    """As dockerd and ufw leave it; our rules are there once, and gone after removal."""
    if shutil.which(iptables) is None:
        pytest.skip(f"needs the command {iptables}")
    world.run(iptables, "-P", "FORWARD", "DROP")
    before = world.run(iptables, "-S")
    network = bridge()
    with world.host.entered():
        network.ensure()
    container = world.container(network, "c")
    outside = world.server(world.internet, INTERNET_ADDRESS)

    assert reach(outside, container) == HOST_ADDRESS
    assert world.run(iptables, "-S").count("-j ACCEPT") == 4  # the bridge, further ones
    with world.host.entered():
        network.remove()
    assert world.run(iptables, "-S") == before


def test_ensure_repairs_what_a_flush_took(world: World, bridge: MakeBridge) -> None:
    world.run("iptables-nft", "-P", "FORWARD", "DROP")
    network = bridge()
    container = world.container(network, "c")
    outside = world.server(world.internet, INTERNET_ADDRESS)
    world.run("nft", "flush", "ruleset")
    world.run("iptables-nft", "-P", "FORWARD", "DROP")
    with pytest.raises(TimeoutError):
        reach(outside, container, timeout_s=0.3)
    with world.host.entered():
        network.ensure()
    assert reach(outside, container) == HOST_ADDRESS


async def test_a_reloaded_firewall_is_mended_by_itself(world: World, bridge: MakeBridge) -> None:
    """As `systemctl reload nftables` does it; what we change ourselves is not news."""
    network = bridge()
    container = world.container(network, "c")
    outside = world.server(world.internet, INTERNET_ADDRESS)
    with world.host.entered():
        network.watch(asyncio.get_running_loop())
        world.run("nft", "flush ruleset; add table inet mine")
        async with asyncio.timeout(30):
            while "masquerade" not in world.run("nft", "list", "ruleset"):
                await asyncio.sleep(0.01)
        assert reach(outside, container) == HOST_ADDRESS
        assert network._repair is None
        network.close()


async def test_a_firewall_switched_on_later_is_noticed(world: World, bridge: MakeBridge) -> None:
    """As `ufw enable` does it."""
    network = bridge()
    container = world.container(network, "c")
    outside = world.server(world.internet, INTERNET_ADDRESS)
    with world.host.entered():
        network.watch(asyncio.get_running_loop())
        world.run("iptables-nft", "-P", "FORWARD", "DROP")
        async with asyncio.timeout(30):
            while "-i sampan0" not in world.run("iptables-nft", "-S", "FORWARD"):
                await asyncio.sleep(0.01)
        assert reach(outside, container) == HOST_ADDRESS
        network.close()


def test_a_foreign_table_that_drops_is_warned_of(world: World, bridge: MakeBridge) -> None:
    world.run(
        "nft",
        "-f",
        "-",
        stdin="add table inet mine\n"
        "add chain inet mine passage { type filter hook forward priority 0; policy drop; }\n",
    )
    network = bridge()
    assert len(network.warnings) == 1
    assert "inet mine passage" in network.warnings[0]


@pytest.mark.parametrize(("interface", "warnings"), [("lan0", 1), ("sampan0", 0)])
def test_firewalld_is_told_of_unless_it_knows(
    world: World, bridge: MakeBridge, interface: str, warnings: int
) -> None:
    """Its zones reject what comes from an interface in none of them."""
    world.run(
        "nft",
        "-f",
        "-",
        stdin="add table inet firewalld\n"
        "add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; }\n"
        f'add rule inet firewalld filter_FORWARD iifname "{interface}" accept\n',
    )
    network = bridge()
    assert len(network.warnings) == warnings
    assert all("firewall-cmd" in text for text in network.warnings)


@pytest.mark.vm
def test_nothing_lingers_after_the_namespace_dies(world: World, bridge: MakeBridge) -> None:
    """No interface is deleted by anybody: the pair goes with the container's namespace."""
    network = bridge()
    before = world.links()
    container = world.container(network, "c")
    assert len(world.links()) == len(before) + 1
    container.close()
    wait_for(lambda: world.links() == before, "the veth is gone")
    assert world.run("bridge", "fdb", "show", "br", "sampan0").count("02:42:ac:1e:00:02") == 0


def test_removal_leaves_nothing(world: World, bridge: MakeBridge) -> None:
    links, rules = world.links(), world.run("nft", "list", "ruleset")
    network = bridge()
    assert world.links() != links
    with world.host.entered():
        network.remove()
        network.remove()
    assert world.links() == links
    assert world.run("nft", "list", "ruleset") == rules


def answers(path: str) -> bool:
    """Whether an engine serves on the socket; it exists long before."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        try:
            client.connect(path)
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b"200 OK" in client.recv(100)
        except OSError:
            return False


@contextlib.contextmanager
def dockerd(world: World, directory: str) -> Iterator[NetworkNamespace]:
    """A real dockerd on the world's host, with containers forwarded by iptables."""
    os.makedirs(f"{directory}/cgroup")
    script = (
        "mount --rbind /sys/fs/cgroup $0/cgroup && mount -t sysfs sysfs /sys && "
        "mount --rbind $0/cgroup /sys/fs/cgroup && "
        "exec dockerd --data-root $0/root --exec-root $0/run -H unix://$0/d.sock --pidfile $0/pid"
    )
    with world.host.entered(), open(f"{directory}/log", "w") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, directory],
            stdout=log,
            stderr=log,
        )
    try:
        try:
            wait_for(lambda: answers(f"{directory}/d.sock"), "dockerd is up", timeout_s=60)
        except AssertionError as error:
            with open(f"{directory}/log") as log:
                error.add_note(log.read()[-4000:])
            raise
        yield world.host
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.parametrize("first", ["sampan", "dockerd"])
def test_beside_a_running_dockerd(
    world: World, bridge: MakeBridge, first: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whoever starts first, containers get out; dockerd's subnet is not ours, its rules stay."""
    if shutil.which("dockerd") is None:
        pytest.skip("needs the command dockerd")
    directory = f"/tmp/sampan-dockerd-{os.getpid()}-{first}"
    os.mkdir(directory)
    try:
        if first == "sampan":
            network = bridge()
        with dockerd(world, directory):
            if first == "dockerd":
                assert "-P FORWARD DROP" in world.run("iptables", "-S")
                network = bridge()
            container = world.container(network, "c")
            outside = world.server(world.internet, INTERNET_ADDRESS)
            assert reach(outside, container) == HOST_ADDRESS
            assert not network.subnet.startswith("172.17.")
            rules = world.run("iptables", "-S", "DOCKER-USER")
            with world.host.entered():
                network.remove()
            assert world.run("iptables", "-S", "DOCKER-USER") == rules
            assert "sampan" not in world.run("nft", "list", "ruleset")
    finally:
        shutil.rmtree(directory)
