"""The bridge driver: what it makes, keeps, refuses and takes away."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Network

import pytest

from sampan.errors import Conflict, InvalidArgument, NotFound, Unavailable
from sampan.linux import interfaces, netlink
from sampan.network import inspect
from sampan.network.bridge import BridgeNetwork
from sampan.network.unbridged import host_network, none_network
from support.world import World

pytestmark = [pytest.mark.root]

MakeBridge = Callable[..., BridgeNetwork]


def test_attach_and_release(bridge: MakeBridge) -> None:
    network = bridge(bip="10.9.0.1/24")
    attachment = network.attach("one")
    assert attachment.endpoint is not None
    assert attachment.endpoint.addresses == ("10.9.0.2/24",)
    assert attachment.endpoint.mac == "02:42:0a:09:00:02"
    assert attachment.endpoint.gateway == network.gateway == "10.9.0.1"
    assert network.attachment("one") is attachment
    with pytest.raises(Conflict, match="already exists in network bridge"):
        network.attach("one")
    network.release("one")
    network.release("one")
    assert network.attachment("one") is None
    again = network.attach("one")
    assert again.endpoint_id != attachment.endpoint_id
    assert again.endpoint is not None
    assert again.endpoint.host_name != attachment.endpoint.host_name


def test_an_address_and_a_mac_of_ones_own(bridge: MakeBridge) -> None:
    network = bridge(bip="10.9.0.1/24")
    endpoint = network.allocate("one", mac="02-AB-00-00-00-01", address="10.9.0.77")
    assert (endpoint.mac, endpoint.addresses) == ("02:ab:00:00:00:01", ("10.9.0.77/24",))
    with pytest.raises(Conflict, match="Address already in use"):
        network.attach("two", address="10.9.0.77")
    for mac in ("nonsense", "01:00:5e:00:00:01", "02:42:ac:1e:00"):
        with pytest.raises(InvalidArgument, match="invalid MAC address"):
            network.attach("two", mac=mac)
    assert network.attachment("two") is None


def test_a_new_daemon_adopts_what_runs(world: World, bridge: MakeBridge) -> None:
    """The bridge keeps its subnet, and no address in use is given away."""
    before = bridge()
    endpoint = before.allocate("one")
    before.close()
    after = bridge()
    assert (after.subnet, after.id) == (before.subnet, before.id)
    attachment = after.adopt("one", endpoint.addresses[0], endpoint.mac, endpoint_id="e" * 64)
    assert attachment.endpoint_id == "e" * 64
    assert after.allocate("two").addresses != endpoint.addresses
    with pytest.raises(Conflict, match="Address already in use"):
        after.adopt("three", endpoint.addresses[0], endpoint.mac)
    shown = inspect.network_resource(after, created="now", names={"one": "web"})
    assert shown["Containers"]["one"]["IPv4Address"] == endpoint.addresses[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": after.subnet, "Gateway": after.gateway}]


def test_an_adopted_address_of_another_subnet_is_left_alone(bridge: MakeBridge) -> None:
    network = bridge(bip="10.9.0.1/24")
    network.adopt("old", "172.30.0.2/16", "02:42:ac:1e:00:02")
    assert network.allocate("new").addresses == ("10.9.0.2/24",)
    network.release("old")


def test_the_subnet_overlaps_nothing_there_is(world: World, bridge: MakeBridge) -> None:
    world.run("ip", "route", "add", "172.30.7.0/24", "via", "198.51.100.1")
    world.run("ip", "route", "add", "172.29.0.0/16", "via", "198.51.100.1", "table", "77")
    network = bridge()
    chosen = IPv4Network(network.subnet)
    assert not chosen.overlaps(IPv4Network("172.29.0.0/16"))
    assert not chosen.overlaps(IPv4Network("172.30.7.0/24"))


def test_the_mtu_is_no_larger_than_the_way_out(world: World, bridge: MakeBridge) -> None:
    world.run("ip", "link", "set", "wan0", "mtu", "1400")
    network = bridge()
    assert network.allocate("one").mtu == 1400
    assert bridge(bridge="other0", mtu=1300).allocate("one").mtu == 1300


def test_ensure_brings_back_a_deleted_bridge(world: World, bridge: MakeBridge) -> None:
    network = bridge()
    subnet, index = network.subnet, network.allocate("one").bridge_index
    world.run("ip", "link", "delete", "sampan0")
    with world.host.entered():
        network.ensure()
    assert network.subnet == subnet
    assert network.allocate("two").bridge_index != index


def test_another_bip_moves_an_idle_bridge(world: World, bridge: MakeBridge) -> None:
    bridge()
    assert bridge(bip="10.9.0.1/24").allocate("one").addresses == ("10.9.0.2/24",)
    with world.host.entered():
        addresses = [text for _, text in interfaces.addresses()]
    assert "10.9.0.1/24" in addresses and "172.30.0.1/16" not in addresses


def test_another_bip_is_refused_while_containers_are_on_it(
    world: World, bridge: MakeBridge
) -> None:
    world.container(bridge(), "one")
    with pytest.raises(Conflict, match=r"bridge sampan0 has the address 172\.30\.0\.1/16"):
        bridge(bip="10.9.0.1/24")


def test_somebody_elses_bridge_is_used_and_kept(world: World, bridge: MakeBridge) -> None:
    world.run("ip", "link", "add", "br-lan", "type", "bridge")
    world.run("ip", "address", "add", "10.77.0.1/24", "dev", "br-lan")
    network = bridge(bridge="br-lan")
    assert network.allocate("one").addresses == ("10.77.0.2/24",)
    with world.host.entered():
        network.remove()
    assert "br-lan" in world.links()
    assert "sampan" not in world.run("nft", "list", "ruleset")


def test_an_interface_that_is_no_bridge(world: World, bridge: MakeBridge) -> None:
    with pytest.raises(Conflict, match="interface wan0 exists and is not a bridge"):
        bridge(bridge="wan0")


@pytest.mark.parametrize("name", ["", "x" * 16, "a b", "../x", "-x", 'x"'])
def test_a_bridge_name_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid bridge name"):
        BridgeNetwork(bridge=name)


def test_before_ensure_there_is_no_address() -> None:
    network = BridgeNetwork()
    assert network.gateway == ""
    with pytest.raises(Unavailable, match="not set up"):
        network.attach("one")


def test_an_engine_without_a_bridge_network(world: World, bridge: MakeBridge) -> None:
    before = world.links()
    network = bridge(bridge="none")
    assert world.links() == before
    assert network.gateway == ""
    with pytest.raises(NotFound, match="network bridge not found"):
        network.attach("one")
    network.release("one")
    network.remove()


def test_a_kernel_that_refuses_is_said(
    world: World, bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "create bridge sampan0: Operation not supported")

    monkeypatch.setattr(interfaces, "create_bridge", refuse)
    with pytest.raises(Unavailable, match="sampan0 cannot be set up: create bridge") as caught:
        bridge()
    assert caught.value.hint and "--bridge none" in caught.value.hint


def test_a_new_address_of_the_bridge_keeps_what_is_in_use(world: World, bridge: MakeBridge) -> None:
    """Somebody gave the bridge another address of the same subnet by hand."""
    network = bridge()
    assert network.allocate("one").addresses == ("172.30.0.2/16",)
    world.run("ip", "address", "flush", "dev", "sampan0")
    world.run("ip", "address", "add", "172.30.0.254/16", "dev", "sampan0")
    with world.host.entered():
        network.ensure()
    assert network.gateway == "172.30.0.254"
    assert network.allocate("two").addresses == ("172.30.0.1/16",)
    assert network.allocate("three").addresses == ("172.30.0.3/16",)


@pytest.mark.parametrize("table", ["a b", "1x", "x;", "{"])
def test_a_table_name_that_cannot_be(table: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid nftables table name"):
        BridgeNetwork(table=table)


CLAIM = """
import sys
from sampan.errors import Conflict
from sampan.linux import netlink
from sampan.network.bridge import BridgeNetwork
from sampan.network.bridge_wishes import BridgeWishes
first, second = BridgeNetwork(bridge="claim0"), BridgeNetwork(bridge="claim0")
first.ensure()
third = BridgeNetwork(bridge="claim0", wishes=BridgeWishes(bip="10.9.0.1/24"))
for other in (second, third):
    try:
        other.ensure()
    except Conflict as error:
        print(error.message)
netlink.delete_link("claim0")
first.ensure()
try:
    second.ensure()
except Conflict as error:
    print(error.message)
first.close()
second.ensure()
second.remove()
BridgeNetwork(bridge="claim0").ensure()
print("done")
"""


def test_two_engines_cannot_share_a_bridge() -> None:
    """The claim is on the interface, ends with its holder, and needs a /sys of its own to show."""
    command = f'mount -t sysfs sysfs /sys && exec "{sys.executable}" -c "$0"'
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", command, CLAIM],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": "src"},
    )
    refused = "bridge claim0 is in use by another engine"
    assert done.stdout.splitlines() == [refused, refused, refused, "done"]


def test_networks_without_an_interface() -> None:
    for network, driver in ((host_network(), "host"), (none_network(), "null")):
        attachment = network.attach("one")
        assert attachment.endpoint is None and len(attachment.endpoint_id) == 64
        assert network.describe()["Driver"] == driver == network.driver
        with pytest.raises(Conflict, match="already exists in network"):
            network.attach("one")
        network.release("one")
        assert network.adopt("one", endpoint_id="e").endpoint_id == "e"
        assert len(network.attachments()) == 1
    assert host_network().id == host_network().id != none_network().id


def test_allocation_takes_microseconds(bridge: MakeBridge) -> None:
    """No I/O between the request and the start: the kernel's part is the shim's."""
    network = bridge()
    before = netlink.index_of
    netlink.index_of = None  # type: ignore[assignment]  # would fail if it were asked
    try:
        for number in range(1000):
            network.attach(f"c{number}")
    finally:
        netlink.index_of = before
    assert len(network.attachments()) == 1000
