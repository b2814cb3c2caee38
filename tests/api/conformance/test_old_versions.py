"""What clients of ten years send and get: API 1.12 to 1.41, which dockerd 20.10 serves, too."""

from __future__ import annotations

from typing import Any

import pytest

from support.engines import IMAGE, Engine
from support.http import Answer

QUIET = {"NetworkMode": "none"}


def create(target: Engine, version: str, **config: Any) -> str:
    body = {"Image": IMAGE, "Cmd": ["sleep", "60"], **config}
    answer = target.request("POST", f"/v{version}/containers/create", body=body)
    assert answer.status == 201, answer
    return str(answer.json["Id"])


def start(target: Engine, version: str, identity: str, host: dict[str, Any]) -> Answer:
    return target.request("POST", f"/v{version}/containers/{identity}/start", body=host)


@pytest.mark.parametrize("version", ["1.12", "1.18", "1.23"])
def test_the_hosts_half_comes_with_the_start(target: Engine, version: str, tmp_path: Any) -> None:
    (tmp_path / "here").write_text("")
    identity = create(target, version, Volumes={"/v": {}})
    before = target.get(f"/containers/{identity}/json").json["Mounts"]
    host = {
        **QUIET,
        "Binds": [f"{tmp_path}:/data:ro"],
        "CapDrop": ["CHOWN"],
        "ReadonlyRootfs": True,
        "Memory": 64 << 20,
    }
    assert start(target, version, identity, host).status == 204
    document = target.get(f"/containers/{identity}/json").json
    shown = document["HostConfig"]
    assert shown["Binds"] == host["Binds"]
    assert (shown["NetworkMode"], shown["CapDrop"]) == ("none", ["CHOWN"])
    assert (shown["ReadonlyRootfs"], shown["Memory"]) == (True, 64 << 20)
    mounts = {mount["Destination"]: mount for mount in document["Mounts"]}
    assert sorted(mounts) == ["/data", "/v"]
    assert mounts["/v"]["Name"] == before[0]["Name"]
    top = target.get(f"/v{version}/containers/{identity}/top", ps_args="-o pid,args").json
    assert "sleep 60" in top["Processes"][0][-1]
    changed = target.request("GET", f"/containers/{identity}/archive", query={"path": "/data/here"})
    assert changed.status == 200


def test_without_one_that_of_the_create_counts(target: Engine) -> None:
    identity = create(target, "1.20", HostConfig={**QUIET, "CapDrop": ["CHOWN"]})
    assert target.request("POST", f"/v1.20/containers/{identity}/start", body={}).status == 204
    assert target.get(f"/containers/{identity}/json").json["HostConfig"]["CapDrop"] == ["CHOWN"]


def test_a_bad_one_is_refused_and_changes_nothing(target: Engine) -> None:
    identity = create(target, "1.20", HostConfig=QUIET)
    answer = start(target, "1.20", identity, {"Binds": ["relative:/x:nonsense"]})
    assert answer.status in (400, 500)  # dockerd 20.10 says 500
    assert b"nonsense" in answer.body
    assert target.get(f"/containers/{identity}/json").json["State"]["Status"] == "created"


@pytest.mark.parametrize("version", ["1.24", "1.41"])
def test_later_versions_start_without(target: Engine, version: str) -> None:
    identity = create(target, version, HostConfig=QUIET)
    answer = start(target, version, identity, {"Binds": ["/tmp:/x"]})
    assert answer.status == 400
    assert answer.message == (
        "starting container with non-empty request body was deprecated since API v1.22 and "
        "removed in v1.24"
    )


def test_limits_stood_in_the_config(target: Engine) -> None:
    identity = create(
        target, "1.17", Memory=64 << 20, MemorySwap=-1, CpuShares=512, HostConfig=QUIET
    )
    host = target.get(f"/containers/{identity}/json").json["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["CpuShares"]) == (64 << 20, -1, 512)


@pytest.mark.parametrize(
    ("version", "there", "gone"),
    [
        ("1.19", ["Volumes", "VolumesRW"], ["Mounts"]),
        ("1.20", ["Mounts"], ["Volumes", "VolumesRW"]),
        ("1.21", ["Mounts"], ["Volumes", "VolumesRW"]),
    ],
)
def test_inspect(target: Engine, version: str, there: list[str], gone: list[str]) -> None:
    identity = create(target, version, HostConfig={**QUIET, "Memory": 64 << 20}, Volumes={"/v": {}})
    document = target.get(f"/v{version}/containers/{identity}/json").json
    assert [name in document for name in there] == [True] * len(there)
    assert not any(name in document for name in gone)
    assert ("Networks" in document["NetworkSettings"]) is (version >= "1.21")
    assert document["Config"].get("Memory") == ((64 << 20) if version == "1.19" else None)
    assert ("VolumeDriver" in document["Config"]) is (version < "1.21")


def test_stats_of_one_network(target: Engine) -> None:
    identity = create(target, "1.20", HostConfig={})
    assert target.request("POST", f"/v1.20/containers/{identity}/start").status == 204
    old = target.get(f"/v1.20/containers/{identity}/stats", stream=False).json
    assert "networks" not in old and "name" not in old
    assert set(old["network"]) == {
        f"{way}_{what}"
        for way in ("rx", "tx")
        for what in ("bytes", "packets", "errors", "dropped")
    }
    new = target.get(f"/v1.41/containers/{identity}/stats", stream=False).json
    assert "network" not in new and "eth0" in new["networks"]


def test_security_options_had_names_only(target: Engine) -> None:
    old = target.get("/v1.24/info").json
    assert "seccomp" in old["SecurityOptions"]
    assert old["ExecutionDriver"] == "<not supported>"
    assert any(
        text.startswith("name=seccomp")
        for text in target.get("/v1.25/info").json["SecurityOptions"]
    )


@pytest.mark.parametrize(("version", "mode"), [("1.39", "shareable"), ("1.40", "private")])
def test_default_ipc_mode(target: Engine, version: str, mode: str) -> None:
    identity = create(target, version, HostConfig=QUIET)
    assert target.get(f"/containers/{identity}/json").json["HostConfig"]["IpcMode"] == mode


@pytest.mark.parametrize("version", ["1.12", "1.23"])
def test_errors_were_plain_text(target: Engine, version: str) -> None:
    answer = target.get(f"/v{version}/containers/nosuch/json")
    assert (answer.status, answer.body) == (404, b"No such container: nosuch\n")
    assert answer.headers["content-type"].startswith("text/plain")


def test_killing_what_does_not_run(target: Engine) -> None:
    """A conflict since 1.20; nothing to do before."""
    identity = create(target, "1.19", HostConfig=QUIET)
    assert target.post(f"/v1.19/containers/{identity}/kill").status == 204
    assert target.post(f"/v1.20/containers/{identity}/kill").status == 409
