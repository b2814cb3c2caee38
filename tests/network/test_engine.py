"""The whole way with the real daemon: its containers reach the internet behind a host that drops."""

from __future__ import annotations

import socket

import pytest

from sampan.linux import interfaces
from support.engines import IMAGE, SampanEngine
from support.netns import wait_for
from support.world import HOST_ADDRESS, INTERNET_ADDRESS, World

pytestmark = [pytest.mark.root]


@pytest.fixture(autouse=True)
def _dropping(world: World) -> None:
    """Before the daemon is there, iptables drops what is forwarded."""
    world.run("iptables", "-P", "FORWARD", "DROP")


def run_container(engine: SampanEngine, *command: str, network: str = "bridge") -> str:
    """Start a container and leave it running; returns its ID."""
    created = engine.post(
        "/containers/create",
        {"Image": IMAGE, "Cmd": list(command), "HostConfig": {"NetworkMode": network}},
    )
    assert created.status == 201, created
    identity: str = created.json["Id"]
    started = engine.post(f"/containers/{identity}/start")
    assert started.status == 204, started
    return identity


def seen_address(server: socket.socket) -> str:
    """Where the next connection comes from, to the server's eyes."""
    accepted, peer = server.accept()
    with accepted:
        accepted.sendall(b"hello\n")
    return str(peer[0])


def address_of(engine: SampanEngine, identity: str, network: str = "bridge") -> str:
    shown = engine.get(f"/containers/{identity}/json").json
    return str(shown["NetworkSettings"]["Networks"][network]["IPAddress"])


def test_containers_reach_the_internet_before_and_after_the_daemons_death(
    world: World, engine: SampanEngine
) -> None:
    """And no address in use is given away by the next daemon, nor anything left in the end."""
    links = len(world.links())
    outside = world.server(world.internet, INTERNET_ADDRESS)
    call = f"until nc {INTERNET_ADDRESS} {outside.getsockname()[1]}; do :; done; exec sleep 1000"
    first = run_container(engine, "sh", "-c", call)
    assert seen_address(outside) == HOST_ADDRESS
    address = address_of(engine, first)

    engine.kill()
    engine.start()
    assert address_of(engine, first) == address
    second = run_container(engine, "sh", "-c", call)
    assert seen_address(outside) == HOST_ADDRESS
    assert address_of(engine, second) not in ("", address)

    assert len(world.links()) == links + 2
    engine.remove_containers()
    with world.host.entered():
        wait_for(lambda: len(interfaces.links()) == links, "the containers' interfaces are gone")


def test_neighbours_and_a_container_without_network(world: World, engine: SampanEngine) -> None:
    """Containers reach each other by address; `--network none` makes no interface on any side."""
    server = run_container(engine, "sh", "-c", "echo hello | nc -l -p 80; exec sleep 1000")
    address = address_of(engine, server)
    client = run_container(
        engine, "sh", "-c", f'until [ "$(nc {address} 80)" = hello ]; do :; done'
    )
    assert engine.post(f"/containers/{client}/wait").json["StatusCode"] == 0
    with world.host.entered():
        wait_for(lambda: len(interfaces.links()) == 4, "only the server's interface is left")

    links = world.links()
    alone = run_container(engine, "sleep", "1000", network="none")
    assert world.links() == links
    assert address_of(engine, alone, network="none") == ""
