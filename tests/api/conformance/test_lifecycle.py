"""A container's life through the docker command: states, their exits, what ps and inspect say."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.waiting import wait_for

TRAPPING = "trap 'echo term; exit 3' TERM; trap 'echo hup' HUP; echo ready; while true; do usleep 20000; done"


def state(docker: DockerCLI, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", name).out)[0]["State"]
    return found


@pytest.mark.vm
def test_create_start_wait_remove(docker: DockerCLI, unused_name: str) -> None:
    docker("create", "--name", unused_name, IMAGE, "sh", "-c", "exit 5")
    assert state(docker, unused_name)["Status"] == "created"
    assert docker("start", unused_name).line == unused_name
    assert docker("wait", unused_name).line == "5"
    end = state(docker, unused_name)
    assert (end["Status"], end["ExitCode"], end["Running"], end["Pid"]) == ("exited", 5, False, 0)
    assert docker("rm", unused_name).line == unused_name
    assert "No such container: " + unused_name in docker.fails("rm", unused_name).err


def test_start_attached_gives_output_and_code(docker: DockerCLI, unused_name: str) -> None:
    docker("create", "--name", unused_name, IMAGE, "sh", "-c", "echo hello; exit 4")
    for _ in range(2):
        result = docker("start", "-a", unused_name, check=False)
        assert (result.out, result.code) == ("hello\n", 4)


def test_failed_start_leaves_it_created(docker: DockerCLI, unused_name: str) -> None:
    result = docker("run", "--name", unused_name, IMAGE, "nosuch", check=False)
    assert result.code == 127
    found = state(docker, unused_name)
    assert (found["Status"], found["ExitCode"]) == ("created", 127)
    assert "executable file not found" in found["Error"]


def test_stop_sends_the_stop_signal_then_kills(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sh", "-c", TRAPPING)
    wait_for(lambda: "ready" in docker("logs", unused_name).out, "the trap to be set")
    docker("stop", unused_name)
    assert state(docker, unused_name)["ExitCode"] == 3
    assert docker("logs", unused_name).out == "ready\nterm\n"
    docker("run", "-d", "--name", unused_name + "k", IMAGE, "sh", "-c", "trap '' TERM; sleep 100")
    begin = time.monotonic()
    docker("stop", "-t", "1", unused_name + "k")
    assert 0.9 < time.monotonic() - begin < 60
    assert state(docker, unused_name + "k")["ExitCode"] == 137


def test_stop_signal_of_the_container(docker: DockerCLI, unused_name: str) -> None:
    script = "trap 'exit 8' USR1; echo ready; while true; do usleep 20000; done"
    docker(
        "run", "-d", "--stop-signal", "SIGUSR1", "--name", unused_name, IMAGE, "sh", "-c", script
    )
    wait_for(lambda: "ready" in docker("logs", unused_name).out, "the trap to be set")
    docker("stop", unused_name)
    assert state(docker, unused_name)["ExitCode"] == 8


@pytest.mark.parametrize("signal", ["HUP", "SIGHUP", "1"])
def test_kill_sends_any_signal(docker: DockerCLI, unused_name: str, signal: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sh", "-c", TRAPPING)
    wait_for(lambda: "ready" in docker("logs", unused_name).out, "the trap to be set")
    docker("kill", "-s", signal, unused_name)
    wait_for(lambda: "hup" in docker("logs", unused_name).out, "the signal")
    docker("kill", unused_name)
    assert docker("wait", unused_name).line == "137"
    assert "is not running" in docker.fails("kill", unused_name).err


def test_restart_gives_a_new_process(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sh", "-c", "echo started; exec sleep 100")
    before = state(docker, unused_name)
    docker("restart", "-t", "0", unused_name)
    after = state(docker, unused_name)
    assert after["Running"]
    assert after["Pid"] != before["Pid"]
    assert after["StartedAt"] > before["StartedAt"]
    wait_for(
        lambda: docker("logs", unused_name).out == "started\nstarted\n", "the log of both runs"
    )


@pytest.mark.vm
def test_pause_and_unpause(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "100")
    docker("pause", unused_name)
    assert state(docker, unused_name)["Status"] == "paused"
    assert "(Paused)" in docker("ps", "--format", "{{.Status}}").line
    assert "is already paused" in docker.fails("pause", unused_name).err
    assert (
        "is paused, unpause the container before exec"
        in docker.fails("exec", unused_name, "true").err
    )
    docker("unpause", unused_name)
    assert state(docker, unused_name)["Status"] == "running"
    assert "is not paused" in docker.fails("unpause", unused_name).err


def test_kill_of_a_paused_container(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "100")
    docker("pause", unused_name)
    docker("rm", "-f", unused_name)
    assert docker("ps", "-aq").out == ""


def test_rename(docker: DockerCLI, unused_name: str) -> None:
    docker("create", "--name", unused_name, IMAGE)
    docker("create", "--name", unused_name + "x", IMAGE)
    docker("rename", unused_name, unused_name + "y")
    assert docker("inspect", "-f", "{{.Name}}", unused_name + "y").line == f"/{unused_name}y"
    assert "No such container" in docker.fails("rename", unused_name, "other").err
    assert (
        f'The container name "/{unused_name}x" is already in use'
        in docker.fails("rename", unused_name + "y", unused_name + "x").err
    )


def test_remove_of_a_running_container_needs_force(docker: DockerCLI, unused_name: str) -> None:
    identity = docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "100").line
    err = docker.fails("rm", unused_name).err
    assert (
        f"You cannot remove a running container {identity}" in err or "container is running" in err
    )
    assert docker("rm", "-f", unused_name).line == unused_name


def test_ids_may_be_shortened(docker: DockerCLI) -> None:
    identity = docker("create", IMAGE).line
    assert docker("inspect", "-f", "{{.Id}}", identity[:5]).line == identity
    assert "No such" in docker.fails("inspect", "0" * 64).err


def test_start_of_a_running_container_is_no_error(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "100")
    docker("start", unused_name)
    docker("stop", "-t", "0", unused_name)
    docker("stop", "-t", "0", unused_name)


def test_names_are_made_up(docker: DockerCLI) -> None:
    docker("create", IMAGE)
    left, _, right = docker("ps", "-a", "--format", "{{.Names}}").line.partition("_")
    assert left.isalpha()
    assert right


def test_ps_filters(docker: DockerCLI, unused_name: str) -> None:
    a, b, c = (unused_name + letter for letter in "abc")
    docker("run", "-d", "--name", a, "--label", "x=1", IMAGE, "sleep", "100")
    docker("run", "--name", b, "--label", "x=2", IMAGE, "sh", "-c", "exit 3", check=False)
    docker("create", "--name", c, IMAGE)

    def names(*options: str) -> list[str]:
        return docker("ps", "--format", "{{.Names}}", *options).out.split()

    assert names() == [a]
    assert names("-a") == [c, b, a]
    assert names("-n", "2") == [c, b]
    assert names("-l") == [c]
    for filter_, expected in {
        "label=x": [b, a],
        "label=x=2": [b],
        "status=running": [a],
        "status=created": [c],
        "exited=3": [b],
        f"name={b}": [b],
        f"name=^/{unused_name}[ab]$": [b, a],
        f"ancestor={IMAGE}": [c, b, a],
        f"before={b}": [a],
        f"since={b}": [c],
        "network=bridge": [c, b, a],
    }.items():
        assert names("-a", "--filter", filter_) == expected, filter_
    assert "nvalid filter" in docker.fails("ps", "--filter", "nosuch=1").err


def test_ps_columns(docker: DockerCLI, unused_name: str) -> None:
    docker(
        "run",
        "-d",
        "--name",
        unused_name,
        IMAGE,
        "sh",
        "-c",
        "sleep 100 && echo a long command line",
    )
    head, line = docker("ps").out.splitlines()
    assert head.split() == [
        "CONTAINER",
        "ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    assert '"sh -c \'sleep 100 &&…"' in line
    assert "Up Less than a second" in line or "Up 1 second" in line or "Up 2 seconds" in line
    size = docker("ps", "-s", "--format", "{{.Size}}").line
    assert "B (virtual " in size


def test_prune(docker: DockerCLI, unused_name: str) -> None:
    docker("create", "--name", unused_name, IMAGE)
    docker("run", "-d", "--name", unused_name + "r", IMAGE, "sleep", "100")
    out = docker("container", "prune", "-f").out
    assert out.startswith("Deleted Containers:")
    assert "Total reclaimed space: 0B" in out
    assert docker("ps", "-a", "--format", "{{.Names}}").line == unused_name + "r"


def test_top(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "77")
    head, line = docker("top", unused_name).out.splitlines()
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert "sleep 77" in line
    head, line = docker("top", unused_name, "-o", "pid,comm").out.splitlines()
    assert head.split() == ["PID", "COMMAND"]
    assert line.split() == [str(state(docker, unused_name)["Pid"]), "sleep"]


def test_wait_for_several_and_after_the_end(docker: DockerCLI, unused_name: str) -> None:
    for code in (1, 2):
        docker("run", "-d", "--name", f"{unused_name}{code}", IMAGE, "sh", "-c", f"exit {code}")
    assert docker("wait", unused_name + "1", unused_name + "2").out == "1\n2\n"


def test_inspect_repeats_what_was_asked(docker: DockerCLI, unused_name: str) -> None:
    docker(
        "create", "--name", unused_name, "-e", "A=1", "-w", "/tmp", "-u", "user", "-l", "k=v", "--memory", "32m",
        "--cap-add", "SYS_ADMIN", "-v", "/tmp:/mnt:ro", "--restart", "no", "--stop-timeout", "7", "-h", "box",
        "--entrypoint", "/bin/sh", IMAGE, "-c", "true",
    )  # fmt: skip
    found = json.loads(docker("inspect", unused_name).out)[0]
    config, host = found["Config"], found["HostConfig"]
    assert config["Env"] == ["A=1", "PATH=/usr/bin:/bin"]
    assert (config["WorkingDir"], config["User"], config["Hostname"], config["Image"]) == (
        "/tmp",
        "user",
        "box",
        IMAGE,
    )
    assert (config["Entrypoint"], config["Cmd"], config["StopTimeout"]) == (
        ["/bin/sh"],
        ["-c", "true"],
        7,
    )
    assert config["Labels"] == {"k": "v"}
    assert host["Memory"] == 32 << 20
    assert [cap.removeprefix("CAP_") for cap in host["CapAdd"]] == ["SYS_ADMIN"]
    assert host["Binds"] == ["/tmp:/mnt:ro"]
    assert (found["Path"], found["Args"]) == ("/bin/sh", ["-c", "true"])
    mount = found["Mounts"][0]
    assert (mount["Type"], mount["Source"], mount["Destination"], mount["RW"]) == (
        "bind",
        "/tmp",
        "/mnt",
        False,
    )


def test_virtual_size_in_inspect(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    docker("run", "--name", unused_name, IMAGE, "sh", "-c", "yes | head -c 100000 > /file")
    found = json.loads(docker("inspect", "-s", unused_name).out)[0]
    assert found["SizeRw"] >= 100_000
    assert found["SizeRootFs"] > found["SizeRw"]
