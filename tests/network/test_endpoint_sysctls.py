"""`com.docker.network.endpoint.sysctls`: settings of one interface, at start and when it joins a container that runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.engines import IMAGE, SampanEngine, running

SYSCTLS = "com.docker.network.endpoint.sysctls"
ASKED = {
    "DriverOpts": {
        SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,"
        "net.ipv4.neigh.ifname.base_reachable_time_ms=12000"
    }
}
UNKNOWN = {"DriverOpts": {SYSCTLS: "net.ipv4.conf.IFNAME.nothing=1"}}


@pytest.fixture(scope="module")
def engine(session_directory: str, session_token: str) -> Iterator[SampanEngine]:
    token = session_token + "y"
    yield from running(SampanEngine(f"{session_directory}/{token}", token))


@pytest.fixture
def own(engine: SampanEngine) -> Iterator[str]:
    assert engine.post("/networks/create", {"Name": "own"}).status == 201
    yield "own"
    for container in engine.get("/containers/json", all=1).json:
        engine.delete(f"/containers/{container['Id']}", force=1)
    assert engine.delete("/networks/own").status == 204


def create(engine: SampanEngine, network: str, endpoint: dict[str, object]) -> None:
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "600"],
        "HostConfig": {"NetworkMode": network},
        "NetworkingConfig": {"EndpointsConfig": {network: endpoint}},
    }
    answer = engine.post("/containers/create", body, name="c1")
    assert answer.status == 201, answer


def settings(engine: SampanEngine, interface: str) -> list[str]:
    """What the container reads of the two settings."""
    paths = [
        f"/proc/sys/net/ipv4/conf/{interface}/log_martians",
        f"/proc/sys/net/ipv4/neigh/{interface}/base_reachable_time_ms",
    ]
    body = {"Cmd": ["cat", *paths], "AttachStdout": True, "Tty": True}
    identity = engine.post("/containers/c1/exec", body).json["Id"]
    return engine.post(f"/exec/{identity}/start", {"Tty": True}).body.decode().split()


@pytest.mark.parametrize("network", ["bridge", "own"])
def test_at_start(engine: SampanEngine, own: str, network: str) -> None:
    create(engine, network, ASKED)
    assert engine.post("/containers/c1/start").status == 204
    assert settings(engine, "eth0") == ["1", "12000"]
    assert settings(engine, "default")[0] == "0"


def test_when_it_joins(engine: SampanEngine, own: str) -> None:
    create(engine, "bridge", {})
    assert engine.post("/containers/c1/start").status == 204
    joined = engine.post("/networks/own/connect", {"Container": "c1", "EndpointConfig": ASKED})
    assert joined.status == 200, joined
    assert settings(engine, "eth1") == ["1", "12000"]
    assert settings(engine, "eth0")[0] == "0"
    assert engine.post("/containers/c1/restart", t=0).status == 204
    assert settings(engine, "eth1") == ["1", "12000"]


def test_one_that_the_kernel_has_not(engine: SampanEngine, own: str) -> None:
    """It is named, and nothing of the start or of the joining stays."""
    before = engine.remains()["interfaces"]
    create(engine, own, UNKNOWN)
    answer = engine.post("/containers/c1/start")
    assert answer.status in (400, 500), answer
    assert "net/ipv4/conf/eth0/nothing" in answer.message, answer
    assert engine.get("/containers/c1/json").json["State"]["Status"] == "created"
    assert engine.remains()["interfaces"] == before
    assert engine.delete("/containers/c1", force=1).status == 204

    create(engine, "bridge", {})
    assert engine.post("/containers/c1/start").status == 204
    before = engine.remains()["interfaces"]
    joined = engine.post("/networks/own/connect", {"Container": "c1", "EndpointConfig": UNKNOWN})
    assert joined.status in (400, 500), joined
    assert "net/ipv4/conf/eth1/nothing" in joined.message, joined
    assert [*engine.get("/containers/c1/json").json["NetworkSettings"]["Networks"]] == ["bridge"]
    assert len(engine.remains()["interfaces"]) == len(before)
    assert engine.post("/networks/own/connect", {"Container": "c1"}).status == 200


def test_in_other_words(engine: SampanEngine, own: str) -> None:
    """Refused with the start, and when it joins one that runs; in dockerd's words."""
    wrong = {"DriverOpts": {SYSCTLS: "net.ipv4.conf.eth0.log_martians=1"}}
    text = "unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'"
    create(engine, own, wrong)
    answer = engine.post("/containers/c1/start")
    assert answer.status in (400, 500) and text in answer.message, answer
    assert engine.get("/containers/c1/json").json["State"]["Status"] == "created"
    assert engine.delete("/containers/c1", force=1).status == 204

    create(engine, "bridge", {})
    assert engine.post("/containers/c1/start").status == 204
    answer = engine.post("/networks/own/connect", {"Container": "c1", "EndpointConfig": wrong})
    assert answer.status in (400, 500) and text in answer.message, answer
    assert [*engine.get("/containers/c1/json").json["NetworkSettings"]["Networks"]] == ["bridge"]
