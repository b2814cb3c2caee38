"""The daemon killed at each stage of connecting and disconnecting a container that runs."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.linux import interfaces
from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for
from support.world import World

# (what is asked, function of network.plugging, whether it has done its work when the daemon dies)
STAGES = [
    ("connect", "plug", False),
    ("connect", "_configure", False),
    ("connect", "plug", True),
    ("connect", "route", True),
    ("disconnect", "unplug", False),
    ("disconnect", "unplug", True),
    ("disconnect", "route", False),
    ("disconnect", "route", True),
]
DEADLY = """
import os, signal, sys
from sampan.network import plugging
name, late = sys.argv[1], sys.argv[2] == "True"
real = getattr(plugging, name)
def deadly(*arguments):
    if late:
        real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(plugging, name, deadly)
from sampan.daemon.main import main
sys.exit(main(sys.argv[3:]))
"""


class _Mortal(SampanEngine):
    """Dies at a stage, if one is set."""

    stage: tuple[str, bool] | None = None

    def argv(self) -> list[str]:
        program, *options = super().argv()
        if self.stage is None:
            return [program, *options]
        name, late = self.stage
        return [sys.executable, "-c", DEADLY, name, str(late), *options]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture(scope="module")
def mortal(world: World, session_directory: str, session_token: str) -> Iterator[_Mortal]:
    token = session_token + secrets.token_hex(1)
    engine = _Mortal(f"{session_directory}/{token}", token)
    with world.host.entered():
        try:
            engine.start()
            engine.import_busybox()
            yield engine
        finally:
            engine.stop()


def said(engine: SampanEngine, container: str, *command: str) -> str:
    body = {"Cmd": command, "AttachStdout": True, "Tty": True}
    identity = engine.post(f"/containers/{container}/exec", body).json["Id"]
    return engine.post(f"/exec/{identity}/start", {"Tty": True}).body.decode()


def check(world: World, engine: SampanEngine, container: str) -> dict[str, Any]:
    """That kernel, files and inspect say the same; returns the networks that the container is in."""
    networks: dict[str, Any] = engine.get(f"/containers/{container}/json").json["NetworkSettings"][
        "Networks"
    ]
    places = sorted(f"{each['IPAddress']}/{each['IPPrefixLen']}" for each in networks.values())
    shown = said(engine, container, "ip", "-o", "-4", "address", "show", "up")
    assert sorted(line.split()[3] for line in shown.splitlines() if " lo " not in line) == places
    routes = said(engine, container, "ip", "route")
    first = networks[sorted(networks)[0]]
    assert f"default via {first['Gateway']} " in routes and routes.count("default") == 1
    hosts = said(engine, container, "cat", "/etc/hosts")
    for place in places:
        assert hosts.count(place.split("/")[0] + "\t") == 1
    with world.host.entered():
        wait_for(
            lambda: sum(link.name.startswith("veth") for link in interfaces.links()) == len(places),
            "an interface on the host for each place",
        )
        for place in places:
            world.run("ping", "-c", "1", "-W", "10", place.split("/")[0])
    return networks


@pytest.mark.parametrize(("asked", "function", "late"), STAGES)
def test_killed(world: World, mortal: _Mortal, asked: str, function: str, late: bool) -> None:
    engine, name = mortal, f"a{secrets.token_hex(3)}"  # before "bridge": its gateway is the one
    if engine.process is None:
        engine.start()
    assert engine.post("/networks/create", {"Name": name}).status == 201
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"]}
    container = engine.post("/containers/create", body).json["Id"]
    assert engine.post(f"/containers/{container}/start").status == 204
    if asked == "disconnect":
        joined = engine.post(f"/networks/{name}/connect", {"Container": container})
        assert joined.status == 200
    engine.terminate()
    engine.stage = (function, late)
    try:
        engine.start()
        with pytest.raises(OSError):
            engine.post(f"/networks/{name}/{asked}", {"Container": container})
        assert engine.process is not None
        engine.process.wait(timeout=60)
    finally:
        engine.stage = None
        engine.kill()
    engine.start()
    networks = check(world, engine, container)
    # What was not to its end can be asked for again.
    if (name in networks) == (asked == "disconnect"):
        answer = engine.post(f"/networks/{name}/{asked}", {"Container": container})
        assert answer.status == 200, answer
    assert (name in check(world, engine, container)) == (asked == "connect")
    engine.remove_containers()
    assert engine.delete(f"/networks/{name}").status == 204
    with world.host.entered():
        wait_for(
            lambda: not any(link.name.startswith(("veth", "br-")) for link in interfaces.links()),
            "every interface to go",
        )


def test_flushed_and_down(world: World, mortal: _Mortal) -> None:
    """A bridge without its addresses and down, a cable off its bridge: all is put back at the start."""
    engine, name = mortal, f"a{secrets.token_hex(3)}"
    if engine.process is None:
        engine.start()
    identity = engine.post("/networks/create", {"Name": name, "EnableIPv6": True}).json["Id"]
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": name}}
    container = engine.post("/containers/create", body).json["Id"]
    assert engine.post(f"/containers/{container}/start").status == 204
    check(world, engine, container)
    engine.kill()
    bridge = f"br-{identity[:12]}"
    with world.host.entered():
        [port] = [link.name for link in interfaces.links() if link.name.startswith("veth")]
    world.run("ip", "link", "set", port, "nomaster")
    world.run("ip", "address", "flush", "dev", bridge)
    world.run("ip", "link", "set", bridge, "down")
    engine.start()
    networks = check(world, engine, container)
    with world.host.entered():
        world.run("ping", "-6", "-c", "1", "-W", "10", networks[name]["GlobalIPv6Address"])
    engine.remove_containers()
    assert engine.delete(f"/networks/{name}").status == 204
