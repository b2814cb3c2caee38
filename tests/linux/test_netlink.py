"""Veth pairs, addresses and routes on a real kernel, with ip(8) as the judge."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.linux import interfaces, netlink, rtnetlink
from sampan.linux.netlink import VethEndpoint
from support.netns import NetworkNamespace, wait_for

pytestmark = [pytest.mark.root, pytest.mark.vm]

BRIDGE = "br-test"


@pytest.fixture
def host() -> Iterator[NetworkNamespace]:
    """A machine with a bridge."""
    namespace = NetworkNamespace()
    with namespace.entered():
        interfaces.create_bridge(
            BRIDGE, mac="02:42:ac:1e:00:01", address="172.30.0.1/16", mtu=1400, alias="ours"
        )
    yield namespace
    namespace.close()


@pytest.fixture
def container() -> Iterator[NetworkNamespace]:
    namespace = NetworkNamespace()
    yield namespace
    namespace.close()


def endpoint(**changes: Any) -> VethEndpoint:
    values: dict[str, Any] = {
        "host_name": "veth-test",
        "bridge": BRIDGE,
        "bridge_index": 0,
        "mac": "02:42:ac:1e:00:02",
        "mtu": 1400,
        "addresses": ["172.30.0.2/16"],
        "gateway": "172.30.0.1",
    }
    return VethEndpoint(**(values | changes))


def ip(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["ip", "-j", "-d", *arguments], capture_output=True, text=True, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def attach(host: NetworkNamespace, container: NetworkNamespace, *ends: VethEndpoint) -> None:
    with host.entered():
        for end in ends:
            netlink.create_veth(end, netns_fd=container.fd)
    with container.entered():
        netlink.configure_inside(ends)


def test_both_ends_are_as_described(host: NetworkNamespace, container: NetworkNamespace) -> None:
    attach(host, container, endpoint())
    with host.entered():
        (port,) = ip("link", "show", "veth-test")
    with container.entered():
        (inside,) = ip("address", "show", "eth0")
        routes = ip("route")
        (loopback,) = ip("address", "show", "lo")

    assert (port["master"], port["mtu"]) == (BRIDGE, 1400)
    assert {"UP", "LOWER_UP"} <= set(port["flags"])
    assert (inside["address"], inside["mtu"]) == ("02:42:ac:1e:00:02", 1400)
    assert {"UP", "LOWER_UP"} <= set(inside["flags"])
    (address,) = inside["addr_info"]
    assert (address["local"], address["prefixlen"]) == ("172.30.0.2", 16)
    assert address["broadcast"] == "172.30.255.255"
    assert {(r["dst"], r.get("gateway")) for r in routes} == {
        ("default", "172.30.0.1"),
        ("172.30.0.0/16", None),
    }
    assert "UP" in loopback["flags"]


def test_ipv6_is_ready_at_once(host: NetworkNamespace, container: NetworkNamespace) -> None:
    """No duplicate address detection that a server would have to wait for."""
    with host.entered():
        interfaces.add_address(BRIDGE, "fd00:5a::1/64")
    attach(
        host,
        container,
        endpoint(addresses=["172.30.0.2/16", "fd00:5a::2/64"], gateway6="fd00:5a::1"),
    )
    with container.entered():
        (inside,) = ip("address", "show", "eth0")
        (default,) = ip("-6", "route", "show", "default")
        listed = interfaces.addresses()
    address = next(a for a in inside["addr_info"] if a["local"] == "fd00:5a::2")
    assert address.get("nodad") and not address.get("tentative")
    assert default["gateway"] == "fd00:5a::1"
    assert {"172.30.0.2/16", "fd00:5a::2/64"} <= {text for _, text in listed}


def test_two_interfaces_and_the_peer_given_by_pid(host: NetworkNamespace) -> None:
    """A namespace can be given by a process in it, and a container can have several ends."""
    done, ready = threading.Event(), threading.Event()
    seen: list[int] = []
    failures: list[BaseException] = []
    ends = [
        endpoint(),
        endpoint(
            host_name="veth-two",
            name="eth1",
            mac="02:42:ac:1e:00:03",
            addresses=["172.30.0.3/16"],
            gateway="",
        ),
    ]
    space = NetworkNamespace()

    def live_inside() -> None:
        try:
            with space.entered():
                seen.append(threading.get_native_id())
                ready.set()
                done.wait(5)
                netlink.configure_inside(ends)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=live_inside)
    thread.start()
    assert ready.wait(5)
    with host.entered():
        for end in ends:
            netlink.create_veth(end, netns_pid=seen[0])
    done.set()
    thread.join()
    assert not failures
    with space.entered():
        names = {link.name for link in interfaces.links() if link.up}
    assert names == {"lo", "eth0", "eth1"}
    space.close()


def test_without_endpoints_only_the_loopback(container: NetworkNamespace) -> None:
    with container.entered():
        netlink.configure_inside([])
        links = interfaces.links()
        assert [text for _, text in interfaces.addresses()] == ["127.0.0.1/8", "::1/128"]
    assert [(link.name, link.up) for link in links] == [("lo", True)]


def test_the_pair_dies_with_the_namespace(host: NetworkNamespace) -> None:
    container = NetworkNamespace()
    attach(host, container, endpoint())
    container.close()

    def gone() -> bool:
        with host.entered():
            return {link.name for link in interfaces.links()} == {"lo", BRIDGE}

    wait_for(gone, "the port is gone")


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        ({"bridge_index": 9999}, errno.ENODEV, "create veth veth-test on br-test"),
        ({"bridge": "nosuch"}, errno.ENODEV, "interface nosuch"),
        ({"host_name": BRIDGE}, errno.EEXIST, "create veth br-test"),
    ],
    ids=["bridge gone", "no bridge of that name", "name taken"],
)
def test_a_failed_pair_leaves_no_half(
    host: NetworkNamespace,
    container: NetworkNamespace,
    change: dict[str, Any],
    number: int,
    words: str,
) -> None:
    with host.entered():
        with pytest.raises(OSError, match=words) as caught:
            netlink.create_veth(endpoint(**change), netns_fd=container.fd)
        assert {link.name for link in interfaces.links()} == {"lo", BRIDGE}
    assert caught.value.errno in (number, errno.EINVAL)
    with container.entered():
        assert [link.name for link in interfaces.links()] == ["lo"]


def test_the_first_failure_of_a_batch_is_raised_in_the_kernels_words(
    host: NetworkNamespace, container: NetworkNamespace
) -> None:
    bad = endpoint(gateway="10.1.2.3", gateway6="fd00::1")
    with host.entered():
        netlink.create_veth(bad, netns_fd=container.fd)
    with container.entered(), pytest.raises(OSError, match="default route through") as caught:
        netlink.configure_inside([bad])
    assert caught.value.errno == errno.ENETUNREACH
    assert "10.1.2.3 on eth0" in str(caught.value)
    assert "Nexthop has invalid gateway" in str(caught.value)


def test_values_that_the_kernel_need_not_be_asked_about(container: NetworkNamespace) -> None:
    with pytest.raises(ValueError, match="1 to 15 bytes"):
        netlink.create_veth(endpoint(host_name="x" * 16, bridge_index=2), netns_fd=container.fd)
    with pytest.raises(ValueError, match="bad MAC address"):
        netlink.create_veth(endpoint(mac="02:42", bridge_index=2), netns_fd=container.fd)
    with pytest.raises(ValueError, match="netns_fd or netns_pid"):
        netlink.create_veth(endpoint())


def test_an_endpoint_survives_json() -> None:
    end = endpoint(gateway6="fd00::1", isolated=True)
    assert VethEndpoint.from_dict(json.loads(json.dumps(end.to_dict()))) == end


def test_the_bridge_and_the_tables_are_read_back(host: NetworkNamespace) -> None:
    with host.entered():
        bridge = next(link for link in interfaces.links() if link.name == BRIDGE)
        assert (bridge.kind, bridge.mtu, bridge.mac, bridge.alias) == (
            "bridge",
            1400,
            "02:42:ac:1e:00:01",
            "ours",
        )
        assert (bridge.index, "172.30.0.1/16") in interfaces.addresses()
        assert ("172.30.0.0/16", "", bridge.index) in interfaces.routes()
        assert netlink.delete_link(BRIDGE) is True
        assert netlink.delete_link(BRIDGE) is False


def test_a_bridge_that_cannot_be_finished_is_taken_back(container: NetworkNamespace) -> None:
    with container.entered():
        with pytest.raises(OSError, match="add address"):
            interfaces.create_bridge(
                "half", mac="02:42:ac:1e:00:01", address="172.30.0.1/40", mtu=1500
            )
        assert [link.name for link in interfaces.links()] == ["lo"]


def test_an_interface_moves_with_its_addresses(host: NetworkNamespace) -> None:
    """Into the namespace of a process; a name taken there leaves everything as it was."""
    process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 100"], stdout=-1)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        inside = ["nsenter", "--net", "--target", str(process.pid), "ip", "-j", "address", "show"]
        with host.entered():
            ip("link", "add", "uplink", "type", "veth", "peer", "name", "far")
            ip("address", "add", "192.0.2.7/24", "dev", "uplink")
            with pytest.raises(OSError, match="interface lo: File exists"):
                interfaces.move_link("uplink", netns_pid=process.pid, new_name="lo")
            with pytest.raises(OSError, match="interface nosuch"):
                interfaces.move_link("nosuch", netns_pid=process.pid)
            interfaces.move_link("uplink", netns_pid=process.pid, new_name="wan1")
            assert "uplink" not in {link.name for link in interfaces.links()}
        (moved,) = json.loads(subprocess.check_output([*inside, "dev", "wan1"]))
        assert "UP" in moved["flags"]
        assert "192.0.2.7" in {address["local"] for address in moved["addr_info"]}
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_long_tables_come_complete(container: NetworkNamespace) -> None:
    """A dump of more than one datagram."""
    with container.entered():
        netlink.configure_inside([])
        interfaces.create_bridge(BRIDGE, mac="02:42:00:00:00:01", address="10.9.0.1/16", mtu=1500)
        for number in range(2, 402):
            interfaces.add_address(BRIDGE, f"10.9.{number // 250}.{number % 250 + 2}/32")
        assert len([a for _, a in interfaces.addresses() if a.startswith("10.9.")]) == 401


def test_no_descriptor_is_left_open(host: NetworkNamespace, container: NetworkNamespace) -> None:
    before = len(os.listdir("/proc/self/fd"))
    attach(host, container, endpoint())
    with host.entered(), pytest.raises(OSError, match="File exists"):
        netlink.create_veth(endpoint(), netns_fd=container.fd)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_attributes_stop_at_garbage() -> None:
    good = rtnetlink.attribute_text(3, "eth0")
    assert rtnetlink.attributes(good + b"\x02\x00\x01\x00") == {3: b"eth0\0"}
    assert rtnetlink.attributes(b"\x01") == {}
