"""The gateway mode `routed`: published ports are those that others reach by the container's own address."""

from __future__ import annotations

import socket
import time

import pytest

from support.command import run
from support.engines import IMAGE, SampanEngine
from support.netns import wait_for
from support.world import HOST_ADDRESS, World

pytestmark = [pytest.mark.root, pytest.mark.vm]

SUBNET, ADDRESS = "10.77.0.0/24", "10.77.0.9"
NEVER_S = 0.5  # what is dropped is not answered however long one waits
MODE = "com.docker.network.bridge.gateway_mode_ipv4"
SERVER = "for p in 80 81; do (while :; do echo hello | nc -l -p $p; done) & done; wait"


@pytest.fixture
def container(world: World, engine: SampanEngine) -> str:
    """A server at 80, published, and 81, which is not, on a routed network that the internet has a route to."""
    world.run("iptables", "-P", "FORWARD", "DROP")
    with world.internet.entered():
        world_route(world)
    made = engine.post(
        "/networks/create",
        {"Name": "routed", "IPAM": {"Config": [{"Subnet": SUBNET}]}, "Options": {MODE: "routed"}},
    )
    assert made.status == 201, made
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", SERVER],
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {
            "NetworkMode": "routed",
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}]},
        },
        "NetworkingConfig": {
            "EndpointsConfig": {"routed": {"IPAMConfig": {"IPv4Address": ADDRESS}}}
        },
    }
    identity = str(engine.post("/containers/create", body).json["Id"])
    started = engine.post(f"/containers/{identity}/start")
    assert started.status == 204, started
    return identity


def world_route(world: World) -> None:
    run(["ip", "route", "add", SUBNET, "via", HOST_ADDRESS])


def reached(world: World, address: str, port: int, patience_s: float = 20) -> bool:
    """Whether a server greets who calls from the internet."""
    until = time.monotonic() + patience_s
    while True:
        with world.internet.entered():
            client = socket.socket()
        with client:
            client.settimeout(min(patience_s, 2))
            try:
                client.connect((address, port))
                return client.recv(6) == b"hello\n"
            except ConnectionRefusedError:
                if patience_s == NEVER_S:
                    return False  # by the host itself
            except TimeoutError:
                pass
        if time.monotonic() > until:
            return False


def test_reached_by_its_own_address(world: World, engine: SampanEngine, container: str) -> None:
    """Nothing of the host's is taken; a flush, another daemon, and changes while it runs."""
    assert reached(world, ADDRESS, 80)
    assert not reached(world, ADDRESS, 81, NEVER_S)
    assert not reached(world, HOST_ADDRESS, 8080, NEVER_S)
    shown = engine.get(f"/containers/{container}/json").json["NetworkSettings"]["Ports"]
    assert shown == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]}
    listed = engine.get("/containers/json").json[0]["Ports"]
    assert listed == [{"IP": "0.0.0.0", "PrivatePort": 80, "Type": "tcp"}]
    engine.kill()
    engine.start()
    assert reached(world, ADDRESS, 80)
    world.run("nft", "flush", "ruleset")
    wait_for(lambda: "published" in world.run("nft", "list", "ruleset"), "the rules are back")
    assert reached(world, ADDRESS, 80)
    change = {"PublishAdd": {"81/tcp": [{"HostPort": "8081"}]}, "PublishRemove": {"80/tcp": None}}
    answer = engine.post(f"/containers/{container}/update", change)
    assert answer.status == 200, answer
    assert reached(world, ADDRESS, 81)
    assert not reached(world, ADDRESS, 80, NEVER_S)
    engine.remove_containers()
    assert ADDRESS not in world.run("nft", "list", "ruleset")
    assert engine.delete("/networks/routed").status == 204


def test_each_family_has_its_own_mode(world: World, engine: SampanEngine) -> None:
    """IPv4 by the host's port, IPv6 by the container's address; both go again."""
    request = {
        "Name": "mixed",
        "EnableIPv6": True,
        "IPAM": {"Config": [{"Subnet": SUBNET}, {"Subnet": "fd00:77::/64"}]},
        "Options": {MODE.replace("ipv4", "ipv6"): "routed"},
    }
    assert engine.post("/networks/create", request).status == 201
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", SERVER],
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {
            "NetworkMode": "mixed",
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        },
    }
    identity = engine.post("/containers/create", body).json["Id"]
    started = engine.post(f"/containers/{identity}/start")
    assert started.status == 204, started
    shown = engine.get(f"/containers/{identity}/json").json["NetworkSettings"]
    found = {each["HostIp"]: each["HostPort"] for each in shown["Ports"]["80/tcp"]}
    assert found == {"0.0.0.0": "8080", "::": ""}
    assert reached(world, HOST_ADDRESS, 8080)
    address = shown["Networks"]["mixed"]["GlobalIPv6Address"]
    assert f"{address} . tcp . " in world.run("nft", "list", "ruleset")
    engine.remove_containers()
    assert f"{address} . tcp . " not in world.run("nft", "list", "ruleset")
    assert engine.delete("/networks/mixed").status == 204
