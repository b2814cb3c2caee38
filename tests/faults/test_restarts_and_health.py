"""Restart policies and health checks over `kill -9` of the daemon, and over a reboot."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from typing import Any

import pytest

from support.engines import IMAGE, SampanEngine, cgroups_below, parent
from support.waiting import wait_for

MILLISECOND = 1_000_000


def inspected(engine: SampanEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.get(f"/containers/{name}/json").json
    return found


def status(engine: SampanEngine, name: str) -> str:
    return str(inspected(engine, name)["State"]["Status"])


def start(engine: SampanEngine, name: str, script: str, policy: str, **fields: Any) -> None:
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", script],
        "HostConfig": {"RestartPolicy": {"Name": policy}, **fields.pop("HostConfig", {})},
        **fields,
    }
    assert engine.post("/containers/create", body, name=name).status == 201
    assert engine.post(f"/containers/{name}/start").status == 204


def processes(engine: SampanEngine, name: str) -> int:
    """How many processes the container has, whoever started them."""
    identity = inspected(engine, name)["Id"]
    directories = [path for path in cgroups_below(engine.cgroup_parent.strip("/")) if path.endswith(identity)]  # fmt: skip
    counts = [0]
    for directory in directories:
        # The container may end, and its cgroup be removed, meanwhile.
        with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs") as file:
            counts.append(len(file.read().split()))
    return max(counts)


@pytest.mark.vm
def test_what_ended_while_no_daemon_was_there(own_sampan: SampanEngine) -> None:
    """Each policy decides on the end as if it had been seen."""
    engine = own_sampan
    shared = os.path.join(engine.directory, "shared")
    os.mkdir(shared)
    binds = {"Binds": [f"{shared}:/shared"]}
    script = "touch /shared/$0; until test -e /shared/go; do usleep 5000; done; test -e /again && exec sleep 600; touch /again; exit 4"
    for policy in ("no", "always", "unless-stopped", "on-failure"):
        start(engine, policy, script, policy, HostConfig=binds)
    running = {name: inspected(engine, name)["State"]["Pid"] for name in ("no", "always", "unless-stopped", "on-failure")}  # fmt: skip
    start(engine, "steady", "exec sleep 600", "always")
    steady = inspected(engine, "steady")["State"]
    engine.kill()
    with open(os.path.join(shared, "go"), "w"):
        pass
    for pid in running.values():
        wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "the end without a daemon")
    engine.start()
    for policy in ("always", "unless-stopped", "on-failure"):
        wait_for(lambda policy=policy: status(engine, policy) == "running", f"{policy} to run")
        assert inspected(engine, policy)["RestartCount"] == 1
    found = inspected(engine, "no")
    assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 4)
    assert inspected(engine, "steady")["State"] == steady


def test_stopped_by_hand_is_remembered(own_sampan: SampanEngine) -> None:
    """Also when the daemon dies between the signal and the end."""
    engine = own_sampan
    shared = os.path.join(engine.directory, "shared")
    os.mkdir(shared)
    script = "trap 'touch /shared/told; until test -e /shared/go; do usleep 5000; done; exit 9' TERM; touch /shared/ready; while true; do usleep 5000; done"
    start(engine, "box", script, "unless-stopped", HostConfig={"Binds": [f"{shared}:/shared"]})
    wait_for(lambda: os.path.exists(f"{shared}/ready"), "the trap to be set")
    pid = inspected(engine, "box")["State"]["Pid"]
    with engine.connect() as connection:
        connection.start("POST", "/containers/box/stop", query={"t": 60})
        wait_for(lambda: os.path.exists(f"{shared}/told"), "the signal")
        engine.kill()
    with open(f"{shared}/go", "w"):
        pass
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the end without a daemon")
    for _ in range(2):
        engine.start()
        found = inspected(engine, "box")["State"]
        assert (found["Status"], found["ExitCode"]) == ("exited", 9)
        engine.kill()
    engine.start()


def test_back_off_goes_on_and_nothing_is_doubled(own_sampan: SampanEngine) -> None:
    """Killed at random moments of starts, ends and pauses: every run happened once and is counted once."""
    engine = own_sampan
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    names = ["loop0", "loop1", "loop2"]
    for name in names:
        start(engine, name, "echo run; usleep 20000; exit 3", "always")
    for _ in range(4):
        before = inspected(engine, names[0])["RestartCount"]
        time.sleep(chance.uniform(0, 0.3))  # the moment is what is random
        engine.kill()
        engine.start()
        wait_for(
            lambda before=before: inspected(engine, names[0])["RestartCount"] > before,
            f"a further restart (seed {seed})",
        )
        assert max(processes(engine, name) for name in names) <= 2  # sh and its usleep
    for name in names:
        runs, counted = wait_for(lambda name=name: runs_and_count(engine, name), f"{name} to pause")
        assert runs == counted, f"{name}, seed {seed}"
    assert engine.post("/containers/loop0/stop", t=0).status == 204
    engine.kill()
    engine.start()
    wait_for(
        lambda: status(engine, "loop0") in ("running", "restarting"), "always, with the engine"
    )


def runs_and_count(engine: SampanEngine, name: str) -> tuple[int, int] | None:
    """How often the log says that it ran, and how many ends were counted; None while it runs."""
    before = inspected(engine, name)
    runs = engine.get(f"/containers/{name}/logs", stdout=1).body.count(b"run\n")
    if (
        before["State"]["Status"] != "restarting"
        or before["State"] != inspected(engine, name)["State"]
    ):
        return None
    return runs, before["RestartCount"]


def test_reboot(own_sampan: SampanEngine) -> None:
    """Processes, cgroups and sockets are gone: what ran and is to run starts, what was stopped does not."""
    engine = own_sampan
    for policy in ("no", "always", "unless-stopped"):
        start(engine, policy, "exec sleep 600", policy)
    start(engine, "stopped", "exec sleep 600", "unless-stopped")
    engine.post("/containers/stopped/stop", t=0)
    pids = [inspected(engine, name)["State"]["Pid"] for name in ("no", "always", "unless-stopped")]
    shims = [parent(pid) for pid in pids]
    engine.kill()
    for shim in shims:
        os.kill(shim, 9)
    for pid in pids:
        wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "the machine to be off")
    shutil.rmtree(os.path.join(engine.exec_root, "shims"))
    engine.start()
    wait_for(lambda: status(engine, "always") == "running", "always")
    wait_for(lambda: status(engine, "unless-stopped") == "running", "unless-stopped")
    found = inspected(engine, "no")["State"]
    assert (found["Status"], found["ExitCode"]) == ("exited", 255)
    assert status(engine, "stopped") == "exited"


def test_health_goes_on_with_the_next_daemon(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    check = {"Test": ["CMD-SHELL", "test -e /ok"], "Interval": 200 * MILLISECOND, "Retries": 1}
    start(engine, "box", "touch /ok; exec sleep 600", "no", Healthcheck=check)

    def health() -> dict[str, Any]:
        found: dict[str, Any] = inspected(engine, "box")["State"]["Health"]
        return found

    wait_for(lambda: health()["Status"] == "healthy", "the first success")
    engine.kill()
    engine.start()
    assert health()["Status"] == "healthy"
    began = health()["Log"][-1]["Start"]
    wait_for(lambda: health()["Log"][-1]["Start"] > began, "a check by the new daemon")
    body = {"Cmd": ["rm", "/ok"]}
    identity = engine.post("/containers/box/exec", body).json["Id"]
    engine.post(f"/exec/{identity}/start", {"Detach": True})
    wait_for(lambda: health()["Status"] == "unhealthy", "the failure to be seen")


def test_a_restart_that_fails_is_tried_again(own_sampan: SampanEngine) -> None:
    """What is missing at boot may come: the next attempt finds it, under the same back-off."""
    engine = own_sampan
    place = os.path.join(engine.directory, "mounted")
    os.mkdir(place)
    mounts = [{"Type": "bind", "Source": place, "Target": "/data"}]
    start(engine, "box", "sleep 0.2; exit 1", "always", HostConfig={"Mounts": mounts})
    os.rmdir(place)
    wait_for(
        lambda: (
            inspected(engine, "box")["State"]["Error"] and status(engine, "box") == "restarting"
        ),
        "an attempt that failed",
    )
    os.mkdir(place)
    count = inspected(engine, "box")["RestartCount"]
    wait_for(
        lambda: (
            status(engine, "box") == "running" or not inspected(engine, "box")["State"]["Error"]
        ),
        "an attempt that succeeds",
    )
    assert inspected(engine, "box")["RestartCount"] >= count
