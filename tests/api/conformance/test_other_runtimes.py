"""`--runtime runc` and crun beside our own; dockerd knows runc."""

from __future__ import annotations

import shutil

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine, SampanEngine
from support.http import Answer
from support.waiting import wait_for

pytestmark = pytest.mark.vm


def both_hierarchies_have_controllers() -> bool:
    try:
        with open("/sys/fs/cgroup/unified/cgroup.controllers") as file:
            return bool(file.read().strip())
    except FileNotFoundError:
        return False


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest, target: Engine) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    if name == "crun" and both_hierarchies_have_controllers():
        pytest.skip("crun refuses machines with controllers in both cgroup hierarchies")
    if target.name == "dockerd" and name != "runc":
        pytest.skip("this dockerd is told of runc only")
    return name


def test_run(newest_docker: DockerCLI, runtime: str) -> None:
    run = newest_docker("run", "--rm", "-i", "--runtime", runtime, IMAGE, "sh", "-c", "id -u; hostname -i; cat; exit 3", stdin="text\n", check=False)  # fmt: skip
    uid, address, text = run.out.splitlines()
    assert (uid, text, run.code) == ("0", "text", 3)
    assert "." in address


def test_options(newest_docker: DockerCLI, runtime: str) -> None:
    """User names, limits, mounts, capabilities and the network are the container's."""
    run = newest_docker(
        "run", "--rm", "--runtime", runtime, "--user", "user", "--memory", "64m", "--read-only",
        "--tmpfs", "/t", "--cap-drop", "ALL", "--network", "none", IMAGE,
        "sh", "-c", "id -u; grep CapPrm /proc/self/status; touch /t/x && ! touch /x; ls /sys/class/net",
    )  # fmt: skip
    uid, capabilities, devices = run.out.splitlines()
    assert uid == "1000"
    assert capabilities.split()[1].strip("0") == ""
    assert devices == "lo"


def test_terminal(newest_docker: DockerCLI, runtime: str, unused_name: str) -> None:
    newest_docker("run", "-d", "-t", "--name", unused_name, "--runtime", runtime, IMAGE, "sh", "-c", "tty; sleep 100")  # fmt: skip
    wait_for(lambda: newest_docker("logs", unused_name).out, "output")
    assert newest_docker("logs", unused_name).line == "/dev/pts/0"


def test_life(target: Engine, newest_docker: DockerCLI, runtime: str, unused_name: str) -> None:
    newest_docker("run", "-d", "--name", unused_name, "--runtime", runtime, IMAGE, "sleep", "100")
    assert newest_docker("exec", unused_name, "echo", "hello").line == "hello"
    newest_docker("pause", unused_name)
    newest_docker("unpause", unused_name)
    newest_docker("restart", "-t", "0", unused_name)
    shown = target.get(f"/containers/{unused_name}/json").json
    assert shown["HostConfig"]["Runtime"] == runtime
    assert shown["State"]["Running"]
    newest_docker("stop", "-t", "0", unused_name)
    assert target.get(f"/containers/{unused_name}/json").json["State"]["ExitCode"] == 137


def test_what_cannot_be_run(newest_docker: DockerCLI, runtime: str) -> None:
    run = newest_docker("run", "--rm", "--runtime", runtime, IMAGE, "/nosuch", check=False)
    assert "no such file or directory" in run.err
    assert run.code == 127
    run = newest_docker("run", "--rm", "--runtime", runtime, IMAGE, "/etc/passwd", check=False)
    assert "permission denied" in run.err
    assert run.code == 126


def test_nothing_is_left(sampan: SampanEngine, newest_docker: DockerCLI, runtime: str) -> None:
    newest_docker("run", "--rm", "--runtime", runtime, IMAGE, "true")
    newest_docker("run", "--rm", "--runtime", runtime, IMAGE, "/nosuch", check=False)

    def nothing() -> bool:
        remains = sampan.remains()
        return not any(remains[kind] for kind in ("mounts", "cgroups", "containers", "shims"))

    wait_for(nothing, "everything of the containers to go")


def test_info(target: Engine, runtime: str) -> None:
    assert runtime in target.get("/info").json["Runtimes"]


@pytest.mark.usefixtures("only_sampan")
def test_no_init(target: Engine, runtime: str) -> None:
    host = {"Runtime": runtime, "Init": True}
    answer: Answer = target.post("/containers/create", {"Image": IMAGE, "HostConfig": host})
    assert (answer.status, "has no init of its own" in answer.message) == (400, True)
