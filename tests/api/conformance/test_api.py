"""The Engine API below any client: versions, statuses, messages, shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.engines import IMAGE, Engine

INSPECT_KEYS = """
Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform
MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings
"""
STATE_KEYS = (
    "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"
)


def create(target: Engine, **body: Any) -> str:
    answer = target.post("/containers/create", {"Image": IMAGE, "Cmd": ["sleep", "600"], **body})
    assert answer.status == 201, answer
    return str(answer.json["Id"])


def test_ping(target: Engine) -> None:
    answer = target.get("/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["ostype"] == "linux"
    assert answer.headers["docker-experimental"] == "false"
    assert tuple(map(int, answer.headers["api-version"].split("."))) >= (1, 41)
    assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"
    head = target.request("HEAD", "/_ping")
    assert (head.status, head.headers["api-version"]) == (200, answer.headers["api-version"])


def test_version_and_info(target: Engine) -> None:
    version = target.get("/version").json
    for key in (
        "Version",
        "ApiVersion",
        "MinAPIVersion",
        "GitCommit",
        "Os",
        "Arch",
        "KernelVersion",
        "Components",
    ):
        assert key in version
    info = target.get("/info").json
    assert info["ContainersRunning"] == 0
    assert info["NCPU"] >= 1
    assert info["OSType"] == "linux"
    assert info["DockerRootDir"] == target.data_root
    assert info["Driver"] in ("overlay2", "overlayfs")
    assert info["DefaultRuntime"]


@pytest.mark.parametrize("version", ["v1.24", "v1.30", "v1.40", "v1.41"])
def test_versioned_paths(target: Engine, version: str) -> None:
    answer = target.get(f"/{version}/containers/json")
    assert (answer.status, answer.json) == (200, [])
    assert target.get(f"/{version}/_ping").status == 200


def test_version_too_new(target: Engine) -> None:
    answer = target.get("/v1.999/version")
    assert answer.status == 400
    assert "client version 1.999 is too new. Maximum supported API version is 1." in answer.message


def test_version_too_old(target: Engine) -> None:
    answer = target.get("/v1.1/version")
    assert answer.status == 400
    assert b"client version 1.1 is too old. Minimum supported API version is 1." in answer.body


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nosuch"), ("POST", "/v1.41/nosuch/x"), ("GET", "/containers/x/y/z")],
)
def test_unknown_route(target: Engine, method: str, path: str) -> None:
    answer = target.request(method, path)
    assert (answer.status, answer.message) == (404, "page not found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/containers/nosuch/json"),
        ("POST", "/containers/nosuch/start"),
        ("POST", "/containers/nosuch/stop"),
        ("POST", "/containers/nosuch/kill"),
        ("POST", "/containers/nosuch/pause"),
        ("POST", "/containers/nosuch/unpause"),
        ("POST", "/containers/nosuch/restart"),
        ("POST", "/containers/nosuch/wait"),
        ("POST", "/containers/nosuch/rename?name=other"),
        ("POST", "/containers/nosuch/resize?h=1&w=1"),
        ("GET", "/containers/nosuch/top"),
        ("GET", "/containers/nosuch/logs?stdout=1"),
        ("DELETE", "/containers/nosuch"),
    ],
)
def test_no_such_container(target: Engine, method: str, path: str) -> None:
    answer = target.request(method, path)
    assert answer.status == 404
    assert answer.message.endswith("No such container: nosuch")  # kill says more
    assert answer.headers["content-type"].startswith("application/json")


def test_no_such_container_to_exec_in(target: Engine) -> None:
    answer = target.post("/containers/nosuch/exec", {"Cmd": ["true"]})
    assert (answer.status, answer.message) == (404, "No such container: nosuch")


def test_no_such_image(target: Engine) -> None:
    answer = target.post("/containers/create", {"Image": "nosuch"})
    assert (answer.status, answer.message) == (404, "No such image: nosuch:latest")
    answer = target.get("/images/nosuch/json")
    assert answer.status == 404
    assert answer.message.endswith("No such image: nosuch:latest")


def test_lifecycle_statuses(target: Engine) -> None:
    identity = create(target)
    base = f"/containers/{identity}"
    assert target.post(f"{base}/start").status == 204
    assert target.post(f"{base}/start").status == 304
    assert target.delete(base).status == 409
    assert target.post(f"{base}/pause").status == 204
    assert target.post(f"{base}/unpause").status == 204
    assert target.post(f"{base}/kill").status == 204
    assert target.post(f"{base}/wait").json["StatusCode"] == 137
    assert target.post(f"{base}/stop").status == 304
    assert target.post(f"{base}/kill").status == 409
    assert target.delete(base).status == 204
    assert target.delete(base).status == 404


def test_wait_until_removed(target: Engine) -> None:
    identity = create(target, Cmd=["sh", "-c", "exit 3"], HostConfig={"AutoRemove": True})
    with target.connect() as connection:
        connection.start("POST", f"/containers/{identity}/wait", query={"condition": "removed"})
        status, reason, headers = connection.read_head()
        assert target.post(f"/containers/{identity}/start").status == 204
        assert connection.finish(status, reason, headers).json["StatusCode"] == 3
    assert target.get(f"/containers/{identity}/json").status == 404


def test_wait_for_the_next_exit(target: Engine) -> None:
    identity = create(target, Cmd=["sh", "-c", "exit 4"])
    with target.connect() as connection:
        connection.start("POST", f"/containers/{identity}/wait", query={"condition": "next-exit"})
        head = connection.read_head()
        target.post(f"/containers/{identity}/start")
        assert connection.finish(*head).json["StatusCode"] == 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Image": IMAGE, "HostConfig": {"Memory": 1}}, "Minimum memory limit allowed is 6MB"),
        ({"Image": IMAGE, "HostConfig": {"CpuQuota": 10}}, "CPU cfs quota can not be less than 1ms"),
        ({"Image": IMAGE, "HostConfig": {"CpuPeriod": 10}}, "CPU cfs period can not be less than 1ms"),
        ({"Image": IMAGE, "HostConfig": {"NanoCpus": 10, "CpuPeriod": 10000}}, "Nano CPUs and CPU Period cannot both be set"),
        ({"Image": IMAGE, "HostConfig": {"Binds": ["a:b:c:d"]}}, "invalid volume specification: 'a:b:c:d'"),
        ({"Image": IMAGE, "HostConfig": {"ShmSize": -1}}, "SHM size can not be less than 0"),
        ({"Image": IMAGE, "StopSignal": "NOSUCH"}, "nvalid signal: NOSUCH"),
        ({"Image": IMAGE, "Hostname": "-bad"}, ""),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_create_refuses(target: Engine, body: dict[str, Any], message: str) -> None:
    answer = target.post("/containers/create", body)
    if answer.status == 201:
        assert message == ""  # dockerd takes any host name; so do we
        return
    assert answer.status == 400 or target.name == "dockerd", answer  # 20.10: 500 for some
    assert message in answer.message, answer


def test_container_list_shape(target: Engine) -> None:
    identity = create(target, Labels={"a": "b"})
    target.post(f"/containers/{identity}/start")
    [entry] = target.get("/containers/json", size=1).json
    assert entry["Id"] == identity
    assert entry["Image"] == IMAGE
    assert entry["ImageID"].startswith("sha256:")
    assert entry["Command"] == "sleep 600"
    assert entry["State"] == "running"
    assert entry["Status"].startswith("Up ")
    assert entry["Labels"] == {"a": "b"}
    assert entry["HostConfig"]["NetworkMode"] in ("default", "bridge")
    assert entry["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert entry["Names"][0].startswith("/")
    assert isinstance(entry["Created"], int)
    assert entry["SizeRootFs"] > 0


def test_inspect_shape(target: Engine) -> None:
    identity = create(target)
    target.post(f"/containers/{identity}/start")
    found = target.get(f"/containers/{identity}/json").json
    assert set(INSPECT_KEYS.split()) <= set(found)
    assert set(STATE_KEYS.split()) <= set(found["State"])
    assert found["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert found["Config"]["Hostname"] == identity[:12]


def test_resize_needs_numbers(target: Engine) -> None:
    identity = create(target, Tty=True)
    target.post(f"/containers/{identity}/start")
    assert target.post(f"/containers/{identity}/resize", h=40, w=120).status == 200
    assert target.post(f"/containers/{identity}/resize", h="x", w=120).status == 400


def test_rename_needs_a_name(target: Engine) -> None:
    identity = create(target)
    answer = target.post(f"/containers/{identity}/rename", name="")
    assert answer.status in (400, 500)
    assert "Neither old nor new names may be empty" in answer.message


def test_bad_filters(target: Engine) -> None:
    refused = 500 if target.name == "dockerd" else 400  # 400 since 23.0
    assert target.get("/containers/json", filters="{not json").status == refused
    answer = target.get("/containers/json", filters={"nosuch": ["x"]})
    assert answer.status == 400
    assert "nvalid filter 'nosuch'" in answer.message


def test_filters_in_the_old_form(target: Engine) -> None:
    """Before 1.22, and still from some clients: {"label": {"a": true}}."""
    identity = create(target, Labels={"a": "b"})
    [entry] = target.get("/containers/json", all=1, filters={"label": {"a=b": True}}).json
    assert entry["Id"] == identity


def test_kill_of_a_bad_signal(target: Engine) -> None:
    identity = create(target)
    target.post(f"/containers/{identity}/start")
    answer = target.post(f"/containers/{identity}/kill", signal="NOSUCH")
    assert answer.status in (400, 500)
    assert "nvalid signal: NOSUCH" in answer.message


def test_create_ignores_null_and_case(target: Engine) -> None:
    """Go's decoder takes null for nothing and keys in any case; docker-py sends such."""
    answer = target.post(
        "/containers/create", {"image": IMAGE, "CMD": ["true"], "Env": None, "hostconfig": None}
    )
    assert answer.status == 201


def test_cmd_may_be_a_string(target: Engine) -> None:
    answer = target.post("/containers/create", {"Image": IMAGE, "Cmd": "true", "Entrypoint": None})
    assert answer.status == 201
    found = target.get(f"/containers/{answer.json['Id']}/json").json
    assert found["Config"]["Cmd"] == ["true"]


def test_connection_is_kept(target: Engine) -> None:
    with target.connect() as connection:
        for _ in range(3):
            assert connection.request("GET", "/_ping").status == 200
        assert connection.request("GET", "/containers/nosuch/json").status == 404
        assert (
            connection.request("POST", "/containers/create", body={"Image": "nosuch"}).status == 404
        )
        assert connection.request("GET", "/_ping").status == 200


def test_names_in_the_path_may_have_a_slash(target: Engine) -> None:
    answer = target.post("/containers/create", {"Image": IMAGE}, name="/slashed")
    assert answer.status == 201
    assert target.get("/containers/slashed/json").json["Name"] == "/slashed"
