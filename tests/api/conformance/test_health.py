"""Health checks through the docker command, on dockerd too."""

from __future__ import annotations

from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.waiting import wait_for

MILLISECOND = 1_000_000


def health(target: Engine, name: str) -> dict[str, Any]:
    state = target.get(f"/containers/{name}/json").json["State"]
    found: dict[str, Any] = state.get("Health") or {}
    return found


def becomes(target: Engine, name: str, status: str) -> dict[str, Any]:
    wait_for(lambda: health(target, name)["Status"] == status, f"{name} to be {status}")
    return health(target, name)


def run(docker: DockerCLI, name: str, command: str, *flags: str) -> None:
    docker("run", "-d", "--name", name, "--health-cmd", command, "--health-interval", "200ms", *flags, IMAGE, "sh", "-c", "touch /ok; exec sleep 600")  # fmt: skip


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"Interval": -1}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Interval": 1}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Timeout": 5}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"StartPeriod": 5}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"Retries": -5}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_refused(target: Engine, check: dict[str, Any], message: str) -> None:
    body = {"Image": IMAGE, "Healthcheck": {"Test": ["CMD", "true"], **check}}
    answer = target.post("/containers/create", body)
    assert (answer.status, answer.json) == (400, {"message": message})


@pytest.mark.vm
def test_healthy_unhealthy_and_back(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    run(docker, unused_name, "test -e /ok && echo fine", "--health-retries", "2")
    assert health(target, unused_name)["Status"] in ("starting", "healthy")
    found = becomes(target, unused_name, "healthy")
    assert found["FailingStreak"] == 0
    assert (found["Log"][0]["ExitCode"], found["Log"][0]["Output"]) == (0, "fine\n")
    assert found["Log"][0]["Start"] < found["Log"][0]["End"]
    assert docker("ps", "--format", "{{.Status}}").line.endswith(" (healthy)")
    assert docker("ps", "-q", "--filter", "health=healthy").out
    assert not docker("ps", "-q", "--filter", "health=unhealthy").out
    docker("exec", unused_name, "rm", "/ok")
    found = becomes(target, unused_name, "unhealthy")
    assert found["FailingStreak"] >= 2
    assert docker("ps", "--format", "{{.Status}}").line.endswith(" (unhealthy)")
    docker("exec", unused_name, "touch", "/ok")
    becomes(target, unused_name, "healthy")
    wait_for(lambda: len(health(target, unused_name)["Log"]) == 5, "five results")


def test_starting(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """Failures in the start period do not make it unhealthy."""
    run(docker, unused_name, "false", "--health-retries", "1", "--health-start-period", "1h", "--health-timeout", "10s")  # fmt: skip
    if not health(target, unused_name)["Log"]:
        assert docker("ps", "--format", "{{.Status}}").line.endswith(" (health: starting)")
    # API 1.44 has an interval of its own for this period.
    if docker.path.endswith("/usr/bin/docker") or target.name == "dockerd":
        wait_for(lambda: health(target, unused_name)["Log"], "a check", timeout_s=45)
    found = health(target, unused_name)
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    assert docker("ps", "-q", "--filter", "health=starting").out


def test_start_interval(
    target: Engine, newest_docker: DockerCLI, unused_name: str, only_sampan: None
) -> None:
    newest_docker("run", "-d", "--name", unused_name, "--health-cmd", "true", "--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "100ms", IMAGE, "sleep", "600")  # fmt: skip
    becomes(target, unused_name, "healthy")
    assert len(health(target, unused_name)["Log"]) == 1


def test_events(target: Engine, newest_docker: DockerCLI, unused_name: str) -> None:
    docker = newest_docker
    since = docker("info", "--format", "{{.SystemTime}}").line
    run(docker, unused_name, "test -e /ok")
    becomes(target, unused_name, "healthy")
    until = docker("info", "--format", "{{.SystemTime}}").line
    told = docker("events", "--since", since, "--until", until, "--filter", f"container={unused_name}", "--format", "{{.Action}}").out.splitlines()  # fmt: skip
    shown = "/bin/sh -c test -e /ok"
    assert told[:6] == [
        "create",
        "start",
        f"exec_create: {shown}",
        f"exec_start: {shown}",
        "exec_die",
        "health_status: healthy",
    ]


def test_time_is_up(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """The whole process tree of a check that takes too long is gone."""
    run(docker, unused_name, "echo before; sleep 777 & sleep 777", "--health-timeout", "300ms", "--health-retries", "1")  # fmt: skip
    found = becomes(target, unused_name, "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert found["Log"][0]["Output"].startswith("Health check exceeded timeout (300ms)")
    if target.name == "sampan":  # dockerd leaves the process in the background
        docker("pause", unused_name)  # no further check
        wait_for(lambda: "sleep 777" not in docker("top", unused_name).out, "the tree to end")


def test_long_output(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    run(docker, unused_name, "yes 0123456 | head -n 100000; echo end >&2; exit 7", "--health-retries", "1")  # fmt: skip
    result = becomes(target, unused_name, "unhealthy")["Log"][0]
    assert result["ExitCode"] == 7
    assert result["Output"] == "0123456\n" * 512 + "..."


def test_no_such_command(target: Engine, unused_name: str) -> None:
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "600"],
        "Healthcheck": {"Test": ["CMD", "/nosuch"], "Interval": 100 * MILLISECOND, "Retries": 1},
    }
    target.post("/containers/create", body, name=unused_name)
    target.post(f"/containers/{unused_name}/start")
    result = becomes(target, unused_name, "unhealthy")["Log"][0]
    assert result["ExitCode"] == -1
    assert "/nosuch" in result["Output"]
    assert "no such file or directory" in result["Output"]


@pytest.mark.parametrize("test", [["NONE"], [], ["BOGUS", "x"]])
def test_no_check(target: Engine, unused_name: str, test: list[str]) -> None:
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "Healthcheck": {"Test": test}}
    target.post("/containers/create", body, name=unused_name)
    target.post(f"/containers/{unused_name}/start")
    assert health(target, unused_name) == {}
    [listed] = target.get("/containers/json", filters={"health": ["none"]}).json
    assert listed["Names"] == [f"/{unused_name}"]


def test_unknown_filter(target: Engine) -> None:
    answer = target.get("/containers/json", filters={"health": ["fine"]})
    assert answer.json == {"message": "Unrecognised filter value for health: fine"}


def test_stopped_paused_and_started(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """Whose checks stand still is unhealthy, as docker has it, without an event."""
    run(docker, unused_name, "test -e /ok")
    becomes(target, unused_name, "healthy")
    docker("pause", unused_name)
    assert health(target, unused_name)["Status"] == "unhealthy"
    docker("unpause", unused_name)
    becomes(target, unused_name, "healthy")
    docker("stop", "-t", "0", unused_name)
    stopped = health(target, unused_name)
    assert stopped["Status"] == "unhealthy"
    assert stopped["Log"]
    docker("start", unused_name)
    becomes(target, unused_name, "healthy")


def test_from_the_image(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """The image's check, options of one's own on top, and none at all."""
    image = f"{unused_name}:health"
    docker("create", "--name", unused_name, IMAGE)
    docker("commit", "--change", "HEALTHCHECK --interval=200ms --retries=7 CMD echo image", unused_name, image)  # fmt: skip
    docker("rm", unused_name)
    try:
        docker("run", "-d", "--name", unused_name, "--health-timeout", "9s", image, "sleep", "600")
        found = becomes(target, unused_name, "healthy")
        assert found["Log"][0]["Output"] == "image\n"
        config = target.get(f"/containers/{unused_name}/json").json["Config"]["Healthcheck"]
        assert config == {
            "Test": ["CMD-SHELL", "echo image"],
            "Interval": 200 * MILLISECOND,
            "Timeout": 9000 * MILLISECOND,
            "Retries": 7,
        }
        docker("rm", "-f", unused_name)
        docker("run", "-d", "--name", unused_name, "--no-healthcheck", image, "sleep", "600")
        assert health(target, unused_name) == {}
    finally:
        docker("rm", "-f", unused_name, check=False)
        docker("rmi", image)


SERVER = "mkdir -p /www; echo fine > /www/ok; exec busybox httpd -f -p 127.0.0.1:8080 -h /www"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sampan.health-tcp", "8080", "connected to 127.0.0.1 port 8080"),
        ("sampan.health-http", "http://localhost:8080/ok", "HTTP/1.1 200 OK"),
    ],
)
@pytest.mark.parametrize("carrier", ["--annotation", "--label"])
def test_probe_from_within(
    target: Engine,
    newest_docker: DockerCLI,
    unused_name: str,
    only_sampan: None,
    carrier: str,
    name: str,
    value: str,
    said: str,
) -> None:
    """A server that listens on the container's own loopback is reached; no process is made for it."""
    docker = newest_docker
    docker("run", "-d", "--name", unused_name, carrier, f"{name}={value}", "--health-interval", "100ms", "--health-retries", "1", IMAGE, "sh", "-c", SERVER)  # fmt: skip
    found = becomes(target, unused_name, "healthy")
    assert found["Log"][-1]["Output"] == said
    assert len(docker("top", unused_name).out.splitlines()) == 2
    docker("kill", unused_name)
    assert health(target, unused_name)["Status"] == "unhealthy"


def test_probe_of_nothing(
    target: Engine, newest_docker: DockerCLI, unused_name: str, only_sampan: None
) -> None:
    newest_docker("run", "-d", "--name", unused_name, "--annotation", "sampan.health-tcp=8080", "--health-interval", "100ms", "--health-retries", "2", IMAGE, "sleep", "600")  # fmt: skip
    found = becomes(target, unused_name, "unhealthy")
    assert found["Log"][-1]["Output"] == "connect to 127.0.0.1 port 8080: Connection refused"
    assert found["FailingStreak"] >= 2
    message = newest_docker.fails("create", "--annotation", "sampan.health-tcp=x", IMAGE).err
    assert "invalid health check: 'x' is no port" in message
