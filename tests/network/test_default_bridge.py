"""dockerd's options about networks, on an engine of its own: what its containers and networks get."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.network.bridge_wishes import BridgeWishes
from support.command import run
from support.engines import IMAGE, SampanEngine
from support.netns import wait_for
from support.world import HOST_ADDRESS, INTERNET_ADDRESS, World

needs_root = pytest.mark.root
Document = dict[str, Any]


class _Engine(SampanEngine):
    """One whose bridge can be left out."""

    def argv(self) -> list[str]:
        words = super().argv()
        place = words.index("--bridge")
        return words if self.bridge else [*words[:place], "--bridge", "none", *words[place + 2 :]]

    def run(self, *command: str, **host: object) -> str:
        """What a command in a container says."""
        body = {"Image": IMAGE, "Cmd": list(command), "HostConfig": host}
        identity = self.post("/containers/create", body).json["Id"]
        assert self.post(f"/containers/{identity}/start").status == 204
        assert self.post(f"/containers/{identity}/wait").json["StatusCode"] == 0
        logs = self.get(f"/containers/{identity}/logs", stdout=True).body
        assert self.delete(f"/containers/{identity}").status == 204
        return b"".join(logs[8:].splitlines(keepends=True)).decode(errors="replace")

    def sleeper(self, **host: object) -> Document:
        """A container that runs; its inspect."""
        body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": host}
        identity = self.post("/containers/create", body).json["Id"]
        answer = self.post(f"/containers/{identity}/start")
        assert answer.status == 204, answer
        found: Document = self.get(f"/containers/{identity}/json").json
        return found


@pytest.fixture
def engine(world: World, session_directory: str, session_token: str) -> Iterator[_Engine]:
    """Not started yet."""
    token = session_token + secrets.token_hex(1)
    engine = _Engine(f"{session_directory}/{token}", token)
    with world.host.entered():
        try:
            yield engine
        finally:
            engine.stop()


def started(engine: _Engine, tmp_path: Path, **options: object) -> _Engine:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({key.replace("_", "-"): value for key, value in options.items()}))
    engine.start("--config-file", str(path))
    engine.import_busybox()
    return engine


@needs_root
def test_what_dockerds_options_say(world: World, engine: _Engine, tmp_path: Path) -> None:
    """All of them at once; the inspect is as of dockerd 20.10 with the same options."""
    started(
        engine,
        tmp_path,
        bip="10.9.0.1/16",
        fixed_cidr="10.9.5.0/24",
        default_gateway="10.9.0.7",
        ipv6=True,
        fixed_cidr_v6="fd09:1::/64",
        default_gateway_v6="fd09:1::7",
        mtu=1400,
        icc=False,
        default_address_pools=[{"base": "10.99.0.0/16", "size": 26}],
        default_network_opts={"bridge": {"com.docker.network.driver.mtu": "1300"}},
        host_gateway_ip="192.0.2.9",
    )
    shown = engine.get("/networks/bridge").json
    assert shown["EnableIPv6"] is True
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.9.0.0/16",
            "IPRange": "10.9.5.0/24",
            "Gateway": "10.9.0.1",
            "AuxiliaryAddresses": {"DefaultGatewayIPv4": "10.9.0.7"},
        },
        {
            "Subnet": "fd09:1::/64",
            "Gateway": "fd09:1::1",
            "AuxiliaryAddresses": {"DefaultGatewayIPv6": "fd09:1::7"},
        },
    ]
    assert shown["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert shown["Options"]["com.docker.network.driver.mtu"] == "1400"
    look = "ip link show eth0; ip -o addr show eth0; ip route; ip -6 route; cat /etc/hosts"
    found = engine.run("sh", "-c", look, ExtraHosts=["out:host-gateway"])
    assert "mtu 1400" in found and "10.9.5.0/16" in found and "fd09:1::2/64" in found
    assert "default via 10.9.0.7 " in found and "default via fd09:1::7 " in found
    assert "192.0.2.9\tout" in found
    one, two = (engine.sleeper()["NetworkSettings"] for _ in range(2))
    assert (one["Gateway"], one["IPv6Gateway"]) == ("10.9.0.7", "fd09:1::7")
    created = engine.post("/networks/create", {"Name": "net"})
    assert created.status == 201
    net = engine.get("/networks/net").json
    assert net["IPAM"]["Config"] == [{"Subnet": "10.99.0.0/26", "Gateway": "10.99.0.1"}]
    assert net["Options"] == {"com.docker.network.driver.mtu": "1300"}
    assert "mtu 1300" in engine.run("ip", "link", "show", "eth0", NetworkMode="net")
    assert one["IPAddress"] != two["IPAddress"]
    with world.host.entered():
        world.run("ping", "-c", "1", "-W", "5", one["IPAddress"])
        world.run("ping", "-6", "-c", "1", "-W", "5", one["GlobalIPv6Address"])
    assert engine.delete("/networks/net").status == 204


@needs_root
def test_ipv6_and_pools_that_the_engine_chooses(
    world: World, engine: _Engine, tmp_path: Path
) -> None:
    """Both subnets stay as they are over a restart, also when the bridge is gone meanwhile and
    somebody else would be next."""
    pools = [{"base": "10.99.0.0/16", "size": 24}]
    started(engine, tmp_path, ipv6=True, default_address_pools=pools)
    before = engine.get("/networks/bridge").json["IPAM"]["Config"]
    assert before[0] == {"Subnet": "10.99.0.0/24", "Gateway": "10.99.0.1"}
    assert before[1]["Subnet"].startswith("fd") and before[1]["Subnet"].endswith("/64")
    running = engine.sleeper()["NetworkSettings"]
    engine.kill()
    world.run("ip", "link", "delete", engine.bridge)
    (tmp_path / "daemon.json").write_text(json.dumps({"ipv6": True}))
    engine.start("--config-file", str(tmp_path / "daemon.json"))
    assert engine.get("/networks/bridge").json["IPAM"]["Config"] == before
    with world.host.entered():
        world.run("ping", "-c", "1", "-W", "5", running["IPAddress"])
        world.run("ping", "-6", "-c", "1", "-W", "5", running["GlobalIPv6Address"])
    engine.kill()
    world.run("ip", "address", "flush", "dev", engine.bridge)
    engine.start("--config-file", str(tmp_path / "daemon.json"))
    assert engine.get("/networks/bridge").json["IPAM"]["Config"] == before
    with world.host.entered():
        world.run("ping", "-c", "1", "-W", "5", running["IPAddress"])


@needs_root
def test_no_default_bridge_and_a_network_of_ones_own(
    world: World, engine: _Engine, tmp_path: Path
) -> None:
    """`--bridge none`: no interface and no rule until there is a network, nor behind it."""
    links, name = world.links(), engine.bridge
    engine.bridge = ""
    try:
        started(engine, tmp_path)
        assert "inet" not in world.run("nft", "list", "tables")
        assert world.links() == links
        assert engine.get("/networks/bridge").status == 404
        assert engine.post("/networks/create", {"Name": "net"}).status == 201
        engine.run("ping", "-c", "1", "-W", "5", INTERNET_ADDRESS, NetworkMode="net")
        world.run("nft", "flush", "ruleset")
        wait_for(
            lambda: "masqueraded" in world.run("nft", "list", "ruleset"), "the rules to be back"
        )
        engine.run("ping", "-c", "1", "-W", "5", INTERNET_ADDRESS, NetworkMode="net")
        engine.kill()
        engine.start("--config-file", str(tmp_path / "daemon.json"))
        engine.run("ping", "-c", "1", "-W", "5", INTERNET_ADDRESS, NetworkMode="net")
        assert engine.delete("/networks/net").status == 204
        wait_for(lambda: world.links() == links, "the interfaces to go")
        assert "inet" not in world.run("nft", "list", "tables")
    finally:
        engine.remove_containers()
        engine.bridge = name


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({"fixed_cidr": "x"}, "invalid value for --fixed-cidr"),
        ({"bip": "10.9.0.1/24", "fixed_cidr": "10.8.0.0/25"}, "is not within the bridge's subnet"),
        ({"bip": "10.9.0.1/24", "gateway": "10.8.0.1"}, "default-gateway 10.8.0.1 is not within"),
        ({"gateway": "fd00::1"}, "invalid value for --default-gateway"),
        ({"fixed_cidr6": "fd00::/64", "gateway6": "fd01::1"}, "default-gateway-v6 fd01::1 is not"),
        ({"bip6": "fd00::1"}, "has no prefix length"),
        ({"mtu": 60}, "invalid MTU 60"),
    ],
)
def test_wishes_that_cannot_be(wishes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        BridgeWishes(**wishes)


def test_without_a_bip_the_network_is_the_fixed_range() -> None:
    asked = BridgeWishes(fixed_cidr="10.9.5.0/24")
    address = asked.address_of(4)
    assert str(address) == "10.9.5.1/24"
    assert address is not None and asked.plan(address).ip_range == ""


@needs_root
def test_a_link_opens_what_icc_closes(world: World, engine: _Engine, tmp_path: Path) -> None:
    """Exposed ports only, for the one that is linked only; also after the daemon's death."""
    started(engine, tmp_path, icc=False)
    serve = "nc -ll -p 80 -e echo open & nc -ll -p 81 -e echo shut & wait"
    body: Document = {"Image": IMAGE, "Cmd": ["sh", "-c", serve], "ExposedPorts": {"80/tcp": {}}}
    web = engine.post("/containers/create", body, name="web").json["Id"]
    assert engine.post(f"/containers/{web}/start").status == 204
    address = engine.get("/containers/web/json").json["NetworkSettings"]["IPAddress"]
    linked = engine.sleeper(Links=["web:db"])["Id"]
    other = engine.sleeper()["Id"]

    def asked(container: str, port: int) -> str:
        """What the server says, or nothing within a second."""
        body = {"Cmd": ["nc", "-w", "1", address, str(port)], "AttachStdout": True, "Tty": True}
        identity = engine.post(f"/containers/{container}/exec", body).json["Id"]
        return engine.post(f"/exec/{identity}/start", {"Tty": True}).body.decode().strip()

    def check() -> None:
        wait_for(lambda: asked(linked, 80) == "open", "the way to the exposed port")
        assert "timed out" in asked(linked, 81) and "timed out" in asked(other, 80)

    check()
    engine.kill()
    engine.start("--config-file", str(tmp_path / "daemon.json"))
    check()
    assert engine.post(f"/containers/{linked}/stop", t=0).status == 204
    assert address not in world.run("nft", "list", "set", "inet", engine.bridge, "links")


@needs_root
def test_gateway_modes(world: World, engine: _Engine, tmp_path: Path) -> None:
    """Who outside reaches a container by its address, and with which address it is seen outside."""
    started(engine, tmp_path)
    modes = {"natted": "nat", "opened": "nat-unprotected", "routed": "routed", "trusting": ""}
    for number, (name, mode) in enumerate(modes.items()):
        options = {"com.docker.network.bridge.gateway_mode_ipv4": mode} if mode else {}
        if name == "trusting":
            options["com.docker.network.bridge.trusted_host_interfaces"] = "wan0"
        config = [{"Subnet": f"10.77.{number}.0/24"}]
        body = {"Name": name, "Options": options, "IPAM": {"Config": config}}
        assert engine.post("/networks/create", body).status == 201
    with world.internet.entered():
        run(["ip", "route", "add", "10.77.0.0/16", "via", HOST_ADDRESS])

    def reached(name: str) -> bool:
        address = engine.sleeper(NetworkMode=name)["NetworkSettings"]["Networks"][name]["IPAddress"]
        with world.host.entered():  # it is there
            world.run("ping", "-c", "1", "-W", "10", address)
        with world.internet.entered():
            return run(["ping", "-c", "1", "-W", "1", address], check=False).code == 0

    assert {name: reached(name) for name in modes} == {
        "natted": False,
        "opened": True,
        "routed": False,
        "trusting": True,
    }

    def seen(name: str) -> str:
        server = world.server(world.internet, INTERNET_ADDRESS)
        call = ["nc", INTERNET_ADDRESS, str(server.getsockname()[1])]
        body = {"Image": IMAGE, "Cmd": call, "HostConfig": {"NetworkMode": name}}
        identity = engine.post("/containers/create", body).json["Id"]
        assert engine.post(f"/containers/{identity}/start").status == 204
        accepted, peer = server.accept()
        accepted.close()
        return str(peer[0])

    assert seen("opened") == HOST_ADDRESS
    assert seen("routed").startswith("10.77.2.")
    unknown = {"Name": "x", "Options": {"com.docker.network.bridge.nosuch": "1"}}
    refused = engine.post("/networks/create", unknown)
    assert refused.status == 400 and "bridge.nosuch=1 is not supported" in refused.json["message"]
    engine.remove_containers()
    for name in modes:
        assert engine.delete(f"/networks/{name}").status == 204
