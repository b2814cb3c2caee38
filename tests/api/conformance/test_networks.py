"""The user's own networks: made, listed, refused, removed; containers connected with them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine

Make = Callable[..., str]
PREDEFINED = {"bridge", "host", "none"}


@pytest.fixture(autouse=True)
def _no_networks_left(target: Engine) -> Iterator[None]:
    yield
    target.remove_containers()
    for network in target.get("/networks").json:
        if network["Name"] not in PREDEFINED:
            assert target.delete(f"/networks/{network['Id']}").status == 204


@pytest.fixture
def subnet() -> str:
    """The beginning of a /16 that no other engine of this machine is likely to use now."""
    return f"198.{18 + os.getpid() % 2}"


def endpoint(docker: DockerCLI, container: str, network: str) -> dict[str, Any]:
    found = json.loads(docker("inspect", container).out)[0]["NetworkSettings"]["Networks"]
    return dict(found[network])


def test_a_network_of_ones_own(docker: DockerCLI, unused_name: str, subnet: str) -> None:
    identity = docker(
        *("network", "create", "--subnet", f"{subnet}.0.0/16", "--ip-range", f"{subnet}.5.0/24"),
        *("--gateway", f"{subnet}.9.1", "--aux-address", f"x={subnet}.5.1", "--label", "a=b"),
        *("--opt", "com.docker.network.driver.mtu=1400", unused_name),
    ).line
    found = json.loads(docker("network", "inspect", unused_name).out)[0]
    assert (found["Id"], found["Name"], found["Driver"]) == (identity, unused_name, "bridge")
    assert found["Labels"] == {"a": "b"}
    assert found["Options"] == {"com.docker.network.driver.mtu": "1400"}
    assert found["IPAM"]["Config"] == [
        {
            "Subnet": f"{subnet}.0.0/16",
            "IPRange": f"{subnet}.5.0/24",
            "Gateway": f"{subnet}.9.1",
            "AuxiliaryAddresses": {"x": f"{subnet}.5.1"},
        }
    ]
    docker("run", "-d", "--name", "one", "--network", unused_name, IMAGE, "sleep", "600")
    place = endpoint(docker, "one", unused_name)
    assert (place["IPAddress"], place["IPPrefixLen"]) == (f"{subnet}.5.0", 16)
    assert place["Gateway"] == f"{subnet}.9.1"
    shown = docker("exec", "one", "sh", "-c", "ip link show eth0; ip route").out
    assert "mtu 1400" in shown and f"default via {subnet}.9.1 dev eth0" in shown
    listed = json.loads(docker("network", "inspect", unused_name).out)[0]["Containers"]
    assert [each["IPv4Address"] for each in listed.values()] == [f"{subnet}.5.0/16"]


def test_refusals(docker: DockerCLI, unused_name: str, subnet: str) -> None:
    docker("network", "create", "--subnet", f"{subnet}.0.0/16", unused_name)
    refusals: list[tuple[tuple[str, ...], str]] = [
        ((unused_name,), f"network with name {unused_name} already exists"),
        (
            ("--subnet", f"{subnet}.3.0/24", "x"),
            "Pool overlaps with other one on this address space",
        ),
        (("bridge",), "operation is not permitted on predefined bridge network"),
        (("-d", "host", "x"), 'only one instance of "host" network is allowed'),
        (("-d", "nosuch", "x"), 'plugin "nosuch" not found'),
    ]
    for arguments, text in refusals:
        refused = docker("network", "create", *arguments, check=False)
        assert refused.code == 1 and text in refused.err, refused
    refusals = [
        (("rm", "bridge"), "bridge is a pre-defined network and cannot be removed"),
        (("rm", "nosuch"), "nosuch"),  # 20.10 has a text of its own
        (("connect", unused_name, "nosuch"), "No such container: nosuch"),
        (("connect", "nosuch", "nosuch"), "No such container: nosuch"),
    ]
    for arguments, text in refusals:
        refused = docker("network", *arguments, check=False)
        assert refused.code == 1 and text in refused.err, refused
    refused = docker("run", "--rm", "--network", "nosuch", IMAGE, "true", check=False)
    assert refused.code == 125 and "network nosuch not found" in refused.err


def test_a_network_in_use_stays(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    docker("network", "create", unused_name)
    docker("run", "-d", "--name", "one", "--network", unused_name, IMAGE, "sleep", "600")
    answer = target.delete(f"/networks/{unused_name}")
    assert answer.status == 403 and "has active endpoints" in answer.json["message"]
    assert docker("network", "prune", "-f").out == ""
    docker("stop", "-t", "0", "one")
    assert docker("network", "prune", "-f").out.split() == ["Deleted", "Networks:", unused_name]
    refused = docker("start", "one", check=False)
    assert refused.code == 1 and "not found" in refused.err


@pytest.mark.vm
def test_connect_and_disconnect_while_it_runs(
    docker: DockerCLI, target: Engine, unused_name: str, subnet: str
) -> None:
    first, second = f"b{unused_name}", f"a{unused_name}"
    docker("network", "create", first)
    docker("network", "create", "--subnet", f"{subnet}.0.0/24", second)
    docker("run", "-d", "--name", "one", "--network", first, IMAGE, "sleep", "600")
    docker("run", "-d", "--name", "two", "--network", second, IMAGE, "sleep", "600")
    docker("network", "connect", "--ip", f"{subnet}.0.77", second, "one")
    again = target.post(f"/networks/{second}/connect", {"Container": "one"})
    assert again.status == 403 and "already exists in network" in again.json["message"]
    shown = docker("exec", "one", "sh", "-c", "ip -o -4 address; cat /etc/hosts; ip route").out
    assert f"eth1    inet {subnet}.0.77/24" in shown
    assert f"{subnet}.0.77\t" in shown
    assert f"default via {subnet}.0.1 dev eth1" in shown  # the first by name carries it
    docker("exec", "two", "ping", "-c", "1", "-W", "5", f"{subnet}.0.77")
    docker("network", "disconnect", first, "one")
    shown = docker("exec", "one", "sh", "-c", "ip -o -4 address; cat /etc/hosts").out
    assert "eth0" not in shown and shown.count("one") == 0
    docker("network", "disconnect", second, "one")
    again = target.post(f"/networks/{second}/disconnect", {"Container": "one"})
    assert again.status == 500 and "is not connected to" in again.json["message"]
    assert docker("exec", "one", "ip", "route").out == ""


def test_connecting_a_container_that_does_not_run(docker: DockerCLI, unused_name: str) -> None:
    docker("network", "create", unused_name)
    docker("create", "--name", "one", IMAGE, "sleep", "600")
    docker("network", "connect", "--alias", "uno", unused_name, "one")
    assert endpoint(docker, "one", unused_name)["IPAddress"] == ""
    docker("start", "one")
    assert endpoint(docker, "one", unused_name)["IPAddress"]
    assert endpoint(docker, "one", "bridge")["IPAddress"]
    assert "uno" in endpoint(docker, "one", unused_name)["Aliases"]
    docker("restart", "-t", "0", "one")
    docker("network", "disconnect", "bridge", "one")
    docker("stop", "-t", "0", "one")
    docker("network", "disconnect", unused_name, "one")
    docker("start", "one")
    assert docker("exec", "one", "ip", "route").out == ""  # none is left


def test_networks_are_kept_apart(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    closed, apart = f"i{unused_name}", f"c{unused_name}"
    docker("network", "create", "--internal", closed)
    docker("network", "create", "--opt", "com.docker.network.bridge.enable_icc=false", apart)
    for name, network in (("one", closed), ("two", closed), ("three", apart), ("four", apart)):
        docker("run", "-d", "--name", name, "--network", network, IMAGE, "sleep", "600")
    if target.name == "sampan":  # dockerd 20.10 had a route that led nowhere
        assert "default" not in docker("exec", "one", "ip", "route").out
    address = endpoint(docker, "two", closed)["IPAddress"]
    docker("exec", "one", "ping", "-c", "1", "-W", "5", address)
    for source, name, network in (("three", "four", apart), ("three", "one", closed)):
        address = endpoint(docker, name, network)["IPAddress"]
        lost = docker("exec", source, "ping", "-c", "1", "-W", "1", address, check=False)
        assert lost.code == 1 and "100% packet loss" in lost.out


@pytest.mark.vm
def test_static_addresses(docker: DockerCLI, unused_name: str, subnet: str) -> None:
    automatic, named = f"u{unused_name}", f"n{unused_name}"
    docker("network", "create", automatic)
    docker(
        *("network", "create", "--subnet", f"{subnet}.0.0/24", "--ipv6"),
        *("--subnet", "fd5a:4d50::/64", named),
    )
    refused = docker(
        "run", "--rm", "--network", automatic, "--ip", f"{subnet}.0.9", IMAGE, check=False
    )
    assert "only when connecting to networks with user configured subnets" in refused.err
    docker(
        *("run", "-d", "--name", "one", "--network", named, "--ip", f"{subnet}.0.9"),
        *("--ip6", "fd5a:4d50::9", IMAGE, "sleep", "600"),
    )
    place = endpoint(docker, "one", named)
    assert (place["IPAddress"], place["GlobalIPv6Address"]) == (f"{subnet}.0.9", "fd5a:4d50::9")
    assert place["IPv6Gateway"] == "fd5a:4d50::1"
    shown = docker("exec", "one", "sh", "-c", "ip address show eth0; ip -6 route").out
    assert "fd5a:4d50::9/64" in shown and place["MacAddress"] in shown
    assert "default via fd5a:4d50::1 dev eth0" in shown
    docker("exec", "one", "ping", "-6", "-c", "1", "-W", "5", "fd5a:4d50::1")
    taken = docker("run", "--rm", "--network", named, "--ip", f"{subnet}.0.9", IMAGE, check=False)
    assert "Address already in use" in taken.err


def test_lists_and_filters(docker: DockerCLI, unused_name: str) -> None:
    docker("network", "create", "--label", f"for={unused_name}", unused_name)

    def names(*filters: str) -> set[str]:
        flags = [part for text in filters for part in ("--filter", text)]
        return set(docker("network", "ls", "--format", "{{.Name}}", *flags).out.split())

    assert names() == {*PREDEFINED, unused_name}
    assert names("type=custom") == names(f"label=for={unused_name}") == {unused_name}
    assert names("type=builtin") == PREDEFINED
    assert names("driver=bridge") == {"bridge", unused_name}
    assert names("dangling=true") == {unused_name}
    assert names("driver=null", "name=on") == {"none"}
    refused = docker("network", "ls", "--filter", "nosuch=1", check=False)
    assert refused.code == 1 and "nosuch" in refused.err


def test_events(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    began = target.get("/info").json["SystemTime"]
    docker("network", "create", unused_name)
    docker("run", "-d", "--name", "one", IMAGE, "sleep", "600")
    docker("network", "connect", unused_name, "one")
    docker("network", "disconnect", unused_name, "one")
    docker("network", "rm", unused_name)
    ended = target.get("/info").json["SystemTime"]
    told = docker(
        *("events", "--since", began, "--until", ended, "--filter", f"network={unused_name}"),
        *("--format", "{{.Action}} {{.Actor.Attributes.type}}"),
    ).out.splitlines()
    # dockerd 20.10 says some of them twice
    assert list(dict.fromkeys(told)) == [
        f"{word} bridge" for word in ("create", "connect", "disconnect", "destroy")
    ]


def test_endpoints_by_docker_py(target: Engine, unused_name: str) -> None:
    client = target.client()
    network = client.networks.create(unused_name, driver="bridge")
    container = client.containers.run(IMAGE, "sleep 600", detach=True)
    network.connect(container, aliases=["uno"])
    network.reload()
    assert container in network.containers
    network.disconnect(container)
    network.reload()
    assert network.containers == []
