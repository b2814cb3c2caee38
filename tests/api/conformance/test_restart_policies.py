"""Restart policies through the docker command, on dockerd too."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.waiting import wait_for


def inspected(target: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = target.get(f"/containers/{name}/json").json
    return found


def status(target: Engine, name: str) -> str:
    return str(inspected(target, name)["State"]["Status"])


def crash_loop(target: Engine, docker: DockerCLI, name: str, ends: int = 4) -> None:
    """A container that has ended so often that its next restart is some time away."""
    docker("run", "-d", "--name", name, "--restart", "always", IMAGE, "sh", "-c", "exit 3")
    wait_for(
        lambda: (
            inspected(target, name)["RestartCount"] >= ends and status(target, name) == "restarting"
        ),
        "some restarts",
    )


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"RestartPolicy": {"Name": "bogus"}}, "invalid restart policy 'bogus'"),
        (
            {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}},
            "maximum retry count cannot be used with restart policy 'always'",
        ),
        (
            {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 2}},
            "maximum retry count cannot be used with restart policy 'no'",
        ),
        (
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}},
            "maximum retry count cannot be negative",
        ),
        (
            {"RestartPolicy": {"Name": "on-failure"}, "AutoRemove": True},
            "can't create 'AutoRemove' container with restart policy",
        ),
    ],
)
def test_refused(target: Engine, host: dict[str, Any], message: str) -> None:
    answer = target.post("/containers/create", {"Image": IMAGE, "HostConfig": host})
    assert (answer.status, answer.json) == (400, {"message": message})


def test_on_failure_gives_up(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, "--restart", "on-failure:2", IMAGE, "sh", "-c", "echo run; exit 3")  # fmt: skip
    wait_for(
        lambda: (
            docker("logs", unused_name).out == "run\n" * 3
            and status(target, unused_name) == "exited"
        ),
        "three runs",
    )
    found = inspected(target, unused_name)
    assert (found["RestartCount"], found["State"]["ExitCode"]) == (2, 3)
    assert found["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}


def test_success_is_no_failure(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, "--restart", "on-failure", IMAGE, "true")
    docker("wait", unused_name)
    found = inspected(target, unused_name)
    assert (found["RestartCount"], found["State"]["Status"]) == (0, "exited")


@pytest.mark.vm
def test_events_of_a_restart(target: Engine, newest_docker: DockerCLI, unused_name: str) -> None:
    since = newest_docker("info", "--format", "{{.SystemTime}}").line
    newest_docker("run", "-d", "--name", unused_name, "--restart", "on-failure:1", IMAGE, "sh", "-c", "exit 3")  # fmt: skip
    wait_for(lambda: inspected(target, unused_name)["RestartCount"] == 1, "the restart")
    wait_for(lambda: status(target, unused_name) == "exited", "the end")
    until = newest_docker("info", "--format", "{{.SystemTime}}").line
    told = newest_docker("events", "--since", since, "--until", until, "--filter", f"container={unused_name}", "--format", "{{.Action}}")  # fmt: skip
    assert told.out.split() == ["create", "start", "die", "start", "die"]


def test_a_container_in_back_off(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """It counts as running, and refuses what needs a process."""
    crash_loop(target, docker, unused_name, ends=5)
    found = inspected(target, unused_name)["State"]
    assert (found["Running"], found["Restarting"], found["Pid"], found["ExitCode"]) == (
        True,
        True,
        0,
        3,
    )
    assert docker("ps", "--format", "{{.Status}}").line.startswith("Restarting (3) ")
    assert docker("ps", "-q", "--filter", "status=restarting").out
    text = "is restarting, wait until the container is running"
    assert text in docker.fails("exec", unused_name, "true").err
    assert text in docker.fails("pause", unused_name).err
    assert "cannot attach to a restarting container" in docker.fails("attach", unused_name).err
    assert "You cannot remove a restarting container" in docker.fails("rm", unused_name).err
    assert docker("start", unused_name).line == unused_name
    assert target.post(f"/containers/{unused_name}/start").status == 304


@pytest.mark.parametrize("command", [("stop",), ("kill",)], ids=["stop", "kill"])
def test_stopped_in_back_off(
    target: Engine, docker: DockerCLI, unused_name: str, command: tuple[str, ...]
) -> None:
    crash_loop(target, docker, unused_name)
    docker(*command, unused_name)
    found = inspected(target, unused_name)
    assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 3)
    assert not found["State"]["Restarting"]
    assert "is not running" in docker.fails("kill", unused_name).err


def test_removed_in_back_off(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    crash_loop(target, docker, unused_name)
    docker("rm", "-f", unused_name)
    assert target.get(f"/containers/{unused_name}/json").status == 404


def test_waited_for_in_back_off(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """A wait lasts until the next end, or until nothing comes any more."""
    crash_loop(target, docker, unused_name)
    answers: list[str] = []
    waiter = threading.Thread(target=lambda: answers.append(docker("wait", unused_name).line))
    waiter.start()
    waiter.join(20)
    assert answers == ["3"]


def test_a_restart_by_hand_counts_anew(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, "--restart", "always", IMAGE, "sh", "-c", "test -e /once && exec sleep 600; touch /once; exit 1")  # fmt: skip
    wait_for(
        lambda: (
            inspected(target, unused_name)["RestartCount"] == 1
            and status(target, unused_name) == "running"
        ),
        "the restart",
    )
    docker("restart", "-t", "0", unused_name)
    found = inspected(target, unused_name)
    assert (found["RestartCount"], found["State"]["Status"]) == (0, "running")


def test_stopped_by_hand(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """No policy brings back what was stopped, until it is started again."""
    script = "trap 'exit 5' TERM; echo ready; while true; do usleep 20000; done"
    docker("run", "-d", "--name", unused_name, "--restart", "always", IMAGE, "sh", "-c", script)
    wait_for(lambda: docker("logs", unused_name).out == "ready\n", "the trap to be set")
    docker("stop", unused_name)
    found = inspected(target, unused_name)
    assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 5)
    assert found["RestartCount"] == 0
    docker("start", unused_name)
    wait_for(lambda: docker("logs", unused_name).out == "ready\n" * 2, "the trap to be set")
    os.kill(inspected(target, unused_name)["State"]["Pid"], 15)
    wait_for(lambda: inspected(target, unused_name)["RestartCount"] == 1, "the restart")


def test_policies_over_the_end_of_the_daemon(
    target: Engine, newest_docker: DockerCLI, unused_name: str, tmp_path: Path
) -> None:
    """`always` starts with the engine, `unless-stopped` unless it was stopped, what never ran not at all."""
    docker = newest_docker
    names = {policy: f"{unused_name}{policy}" for policy in ("always", "unless-stopped")}
    for policy, name in names.items():
        docker("run", "-d", "--name", name, "--restart", policy, IMAGE, "sleep", "600")
        docker("stop", "-t", "0", name)
    up = f"{unused_name}up"
    docker("run", "-d", "--name", up, "--restart", "unless-stopped", IMAGE, "sleep", "600")
    docker("create", "--name", unused_name, "--restart", "always", IMAGE, "sleep", "600")
    restart(target)
    wait_for(lambda: status(target, names["always"]) == "running", "the container `always`")
    wait_for(lambda: status(target, up) == "running", "the container that ran")
    assert status(target, names["unless-stopped"]) == "exited"
    assert status(target, unused_name) == "created"


def restart(target: Engine) -> None:
    """The daemon ends as it should, and starts again."""
    assert target.process is not None
    target.process.terminate()
    target.process.wait()
    target.start()


def test_inspect_and_list_agree(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    crash_loop(target, docker, unused_name)
    [listed] = json.loads(target.get("/containers/json").body)
    assert listed["State"] in ("restarting", "running")
    docker("rm", "-f", unused_name)


def test_a_message_does_not_stop_by_hand(
    target: Engine, newest_docker: DockerCLI, unused_name: str, only_sampan: None
) -> None:
    """A reload by SIGHUP leaves the policy in force; under dockerd it turns it off."""
    script = "trap 'echo hup' HUP; echo ready; while test ! -e /end; do usleep 20000; done; rm /end; exit 3"
    newest_docker("run", "-d", "--name", unused_name, "--restart", "unless-stopped", IMAGE, "sh", "-c", script)  # fmt: skip
    wait_for(lambda: "ready" in newest_docker("logs", unused_name).out, "the trap to be set")
    newest_docker("kill", "-s", "HUP", unused_name)
    wait_for(lambda: "hup" in newest_docker("logs", unused_name).out, "the signal")
    newest_docker("exec", unused_name, "touch", "/end")
    wait_for(lambda: inspected(target, unused_name)["RestartCount"] == 1, "the restart")
