"""Published ports on a host with Debian's ufw: what it does not allow is not reached from outside."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from support.engines import IMAGE, SampanEngine
from support.netns import NetworkNamespace, wait_for
from support.world import HOST_ADDRESS, INTERNET_ADDRESS, World

pytestmark = [pytest.mark.root, pytest.mark.vm]

PORT = 8080
DROPPED_S = 1.0  # what is dropped on the way is not answered however long one waits
GREETER = "while :; do echo hello | nc -l -p 80; done"

Ufw = Callable[..., str]


@pytest.fixture
def ufw(world: World, tmp_path: Path) -> Ufw:
    """The command, for the world's host only: it keeps what it is told in a directory of the test's."""
    if shutil.which("ufw") is None:
        pytest.skip("needs the command ufw")
    shutil.copytree("/etc/ufw", tmp_path / "etc")
    shutil.copy("/etc/default/ufw", tmp_path / "default")
    own = (
        f"mount --bind {tmp_path}/etc /etc/ufw && mount --bind {tmp_path}/default /etc/default/ufw"
    )

    def call(*arguments: str) -> str:
        return world.run("unshare", "--mount", "sh", "-c", f'{own} && ufw "$@"', "ufw", *arguments)

    return call


def greeted(where: NetworkNamespace, address: str, patience_s: float) -> bool:
    """Whether the container's server is reached from there."""
    with where.entered():
        client = socket.socket()
    with client:
        client.settimeout(patience_s)
        try:
            client.connect((address, PORT))
            return client.recv(6) == b"hello\n"
        except (TimeoutError, ConnectionError):
            return False


def from_outside(world: World, *, patience_s: float = 30) -> bool:
    return greeted(world.internet, HOST_ADDRESS, patience_s)


def publish(engine: SampanEngine) -> None:
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", GREETER],
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": str(PORT)}]}},
    }
    identity = engine.post("/containers/create", body).json["Id"]
    started = engine.post(f"/containers/{identity}/start")
    assert started.status == 204, started


@pytest.mark.parametrize("first", ["engine", "ufw"])
def test_what_ufw_says_counts(
    world: World, ufw: Ufw, request: pytest.FixtureRequest, first: str
) -> None:
    """Whichever of the two starts first, and after ufw was loaded again; the host itself gets through."""
    if first == "ufw":
        assert "Firewall is active" in ufw("--force", "enable")
    engine: SampanEngine = request.getfixturevalue("engine")
    publish(engine)
    if first == "engine":
        wait_for(lambda: from_outside(world), "the port to be reached without a firewall")
        ufw("--force", "enable")
    wait_for(lambda: greeted(world.host, "127.0.0.1", 30), "the host to reach the port")
    assert not from_outside(world, patience_s=DROPPED_S)
    ufw("allow", f"{PORT}/tcp")
    wait_for(lambda: from_outside(world), "an allowed port to be reached")
    ufw("reload")
    wait_for(lambda: from_outside(world), "the port to be reached after a reload")
    ufw("delete", "allow", f"{PORT}/tcp")
    assert not from_outside(world, patience_s=DROPPED_S)
    ufw("allow", "from", INTERNET_ADDRESS)
    wait_for(lambda: from_outside(world), "an allowed client to reach the port")
    ufw("disable")
    wait_for(lambda: from_outside(world), "the port to be reached when ufw is off")
