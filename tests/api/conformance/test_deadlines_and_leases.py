"""Deadlines, leases, start order and --on-unhealthy, through a real engine. Sampan's own: dockerd has none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.command import DockerCLI, Result, run
from support.engines import IMAGE, Engine
from support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("only_sampan")

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
FOREVER = ("sleep", "1000")
SECOND = 1_000_000_000


@pytest.fixture
def lease(target: Engine) -> Iterator[str]:
    """A lease that lives until the test ends."""
    name = f"lease-{os.urandom(4).hex()}"
    assert target.post("/leases/create", {"Name": name, "TTL": 3600 * SECOND}).status == 201
    yield name
    target.delete(f"/leases/{name}")


def sampan(target: Engine, *arguments: str, **options: Any) -> Result:
    return run([SAMPAN, "-H", f"unix://{target.socket}", *arguments], **options)


def inspected(target: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = target.get(f"/containers/{name}/json").json
    return found


def gone(target: Engine, path: str) -> bool:
    return target.get(path).status == 404


def actions(target: Engine, name: str) -> list[str]:
    """The events of a container so far."""
    wanted = json.dumps({"container": [name]})
    answer = target.get("/events", since="1", until=f"{time.time():.6f}", filters=wanted)
    return [json.loads(line)["Action"] for line in answer.body.splitlines()]


def command_lines(target: Engine, name: str) -> list[str]:
    """What runs in a container."""
    rows = target.get(f"/containers/{name}/top", ps_args="-eo pid,args").json["Processes"]
    return [row[-1] for row in rows]


# -- deadlines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["flag", "label"])
def test_a_container_with_a_ttl_goes(
    target: Engine, docker: DockerCLI, unused_name: str, how: str
) -> None:
    volume = f"{unused_name}-kept"
    options = ("--name", unused_name, "--restart", "always", "-v", f"{volume}:/kept", "-v", "/own")
    if how == "flag":
        sampan(target, "run", "-d", *options, "--ttl", "1s", IMAGE, *FOREVER)
    else:
        docker("run", "-d", *options, "--label", "dev.sampan.ttl=1s", IMAGE, *FOREVER)
    mounts = inspected(target, unused_name)["Mounts"]
    wait_for(lambda: gone(target, f"/containers/{unused_name}/json"), "its end")
    [own] = [mount["Name"] for mount in mounts if mount["Destination"] == "/own"]
    assert gone(target, f"/volumes/{own}")
    assert target.delete(f"/volumes/{volume}").status == 204


def test_one_that_never_ran_goes_too(target: Engine, unused_name: str) -> None:
    sampan(target, "create", "--name", unused_name, "--ttl", "200ms", IMAGE)
    wait_for(lambda: gone(target, f"/containers/{unused_name}/json"), "its end")


def test_a_ttl_changes_live(target: Engine, unused_name: str) -> None:
    sampan(target, "run", "-d", "--name", unused_name, "--ttl", "1h", IMAGE, *FOREVER)
    sampan(target, "update", "--ttl", "0", unused_name)
    assert inspected(target, unused_name)["HostConfig"]["Annotations"]["sampan.ttl"] == "0"
    refused = sampan(target, "update", "--ttl", "soon", unused_name, check=False)
    assert "is no duration" in refused.err and refused.code == 1
    sampan(target, "update", "--ttl", "100ms", unused_name)
    wait_for(lambda: gone(target, f"/containers/{unused_name}/json"), "its end")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [("sampan.ttl", "-1s"), ("sampan.after", "db:fine"), ("sampan.on-unhealthy", "kill")],
)
def test_refused(target: Engine, annotation: str, value: str) -> None:
    body = {"Image": IMAGE, "HostConfig": {"Annotations": {annotation: value}}}
    answer = target.post("/containers/create", body)
    assert answer.status == 400 and answer.message.startswith("invalid "), answer
    assert target.get("/containers/json", all=True).json == []


SCRIPT = "sleep 771 & (sleep 772 &); (setsid sleep 773 &); echo up; exec sleep 774"


def test_an_exec_with_a_timeout_ends_with_all_it_started(
    target: Engine, docker: DockerCLI, unused_name: str
) -> None:
    docker("run", "-d", "--init", "--name", unused_name, IMAGE, *FOREVER)
    ended = sampan(target, "exec", "--timeout", "1s", unused_name, "sh", "-c", SCRIPT, check=False)
    assert (ended.code, ended.out) == (124, "up\n")
    assert not any("sleep 77" in line for line in command_lines(target, unused_name))


def test_an_exec_in_time(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, *FOREVER)
    ended = sampan(target, "exec", "--timeout", "1h", unused_name, "sh", "-c", "exit 3", check=False)  # fmt: skip
    assert ended.code == 3


def test_an_exec_is_deleted(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--init", "--name", unused_name, IMAGE, *FOREVER)
    script = "sleep 771 & (sleep 772 &); exec sleep 774"
    body = {"Cmd": ["sh", "-c", script], "AttachStdout": True}
    identity = target.post(f"/containers/{unused_name}/exec", body).json["Id"]
    with target.connect() as connection:
        connection.hijack(f"/exec/{identity}/start", body={})
        wait_for(
            lambda: any("sleep 774" in line for line in command_lines(target, unused_name)),
            "its processes",
        )
        assert target.delete(f"/exec/{identity}").status == 204
        assert not any("sleep 77" in line for line in command_lines(target, unused_name))
        assert list(connection.rest()) == []
    assert target.delete(f"/exec/{identity}").status == 404
    never = target.post(f"/containers/{unused_name}/exec", body).json["Id"]
    assert target.delete(f"/exec/{never}").status == 204
    assert target.get(f"/exec/{never}/json").status == 404


# -- leases ------------------------------------------------------------------------------------


def test_everything_under_a_lease_goes(
    target: Engine, docker: DockerCLI, unused_name: str, lease: str
) -> None:
    outside, inside, created = unused_name, f"{unused_name}-in", f"{unused_name}-made"
    docker("run", "-d", "--init", "--name", outside, IMAGE, *FOREVER)
    volumes = [f"{unused_name}-v{number}" for number in range(3)]
    docker("volume", "create", volumes[2])
    mounts = ("-v", f"{volumes[0]}:/a", "-v", f"{volumes[2]}:/b")
    sampan(target, "run", "-d", "--lease", lease, "--name", inside, *mounts, IMAGE, *FOREVER)
    docker("create", "--name", created, "--label", f"sampan.lease={lease}", IMAGE)
    sampan(target, "volume", "create", volumes[1], env={"SAMPAN_LEASE": lease, "PATH": "/bin"})
    network = target.request(
        "POST", "/networks/create", body={"Name": f"{unused_name}-net"}, headers={"X-Sampan-Lease": lease}
    )  # fmt: skip
    assert network.status == 201, network
    sampan(target, "exec", "-d", "--lease", lease, outside, "sh", "-c", SCRIPT)
    found = target.get(f"/leases/{lease}").json
    counts = [len(found[kind]) for kind in ("Execs", "Containers", "Networks", "Volumes")]
    assert counts == [1, 2, 1, 2]
    listed = docker("ps", "-aq", "--filter", f"label=sampan.lease={lease}").out.split()
    assert len(listed) == 2
    assert sampan(target, "lease", "rm", lease).line == lease
    assert gone(target, f"/containers/{inside}/json")
    assert gone(target, f"/containers/{created}/json")
    assert gone(target, f"/volumes/{volumes[0]}") and gone(target, f"/volumes/{volumes[1]}")
    assert gone(target, f"/networks/{network.json['Id']}")
    assert not any("sleep 77" in line for line in command_lines(target, outside))
    assert target.delete(f"/volumes/{volumes[2]}").status == 204  # it was there before
    assert gone(target, f"/leases/{lease}")


def test_a_lease_that_nobody_renews(target: Engine, unused_name: str) -> None:
    sampan(target, "lease", "create", unused_name, "--ttl", "1s")
    sampan(target, "run", "-d", "--lease", unused_name, "--name", unused_name, IMAGE, *FOREVER)
    wait_for(lambda: gone(target, f"/containers/{unused_name}/json"), "the end of its container")
    wait_for(lambda: gone(target, f"/leases/{unused_name}"), "the end of the lease")
    assert sampan(target, "lease", "renew", unused_name, check=False).code == 1


def test_what_is_in_use_elsewhere_goes_later(
    target: Engine, docker: DockerCLI, unused_name: str, lease: str
) -> None:
    sampan(target, "volume", "create", "--lease", lease, unused_name)
    docker("create", "--name", unused_name, "-v", f"{unused_name}:/v", IMAGE)
    refused = sampan(target, "lease", "rm", lease, check=False)
    assert refused.code == 1 and f"volume {unused_name}" in refused.err
    assert target.get(f"/leases/{lease}").json["Status"] == "ending"
    joining = sampan(target, "create", "--lease", lease, IMAGE, check=False)
    assert f"lease {lease} is ending" in joining.err
    docker("rm", unused_name)
    wait_for(lambda: gone(target, f"/leases/{lease}"), "the rest to go")
    assert gone(target, f"/volumes/{unused_name}")


def test_no_such_lease(target: Engine, docker: DockerCLI) -> None:
    refused = docker("create", "--label", "sampan.lease=nobody", IMAGE, check=False)
    assert "No such lease: nobody" in refused.err
    assert target.get("/containers/json", all=True).json == []


def test_held_by_a_command(target: Engine, unused_name: str) -> None:
    """What it makes goes when it ends; its exit status comes through."""
    script = (
        f'"$0" -H unix://{target.socket} run -d --name {unused_name} {IMAGE} sleep 1000 && exit 7'
    )
    held = sampan(target, "lease", "hold", unused_name, "sh", "-c", script, SAMPAN, check=False)
    assert held.code == 7 and len(held.line) == 64, held
    assert gone(target, f"/containers/{held.line}/json")
    assert gone(target, f"/leases/{unused_name}")


def test_the_holder_is_killed(target: Engine, unused_name: str) -> None:
    holder = subprocess.Popen(
        [SAMPAN, "-H", f"unix://{target.socket}", "lease", "hold", unused_name],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == unused_name.encode()  # fmt: skip
        sampan(target, "run", "-d", "--lease", unused_name, "--name", unused_name, IMAGE, *FOREVER)
        assert target.get(f"/leases/{unused_name}").json["Holders"] == 1
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    wait_for(lambda: gone(target, f"/leases/{unused_name}"), "the lease to end")
    assert gone(target, f"/containers/{unused_name}/json")


# -- start order -------------------------------------------------------------------------------


def test_start_waits_for_health(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    other = f"{unused_name}-db"
    sampan(target, "create", "--name", unused_name, "--after", f"{other}:healthy", IMAGE, *FOREVER)
    refused = docker("start", unused_name, check=False)
    assert f"it starts after {other}, which does not exist" in refused.err
    health = (
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "200ms",
        "--health-retries",
        "999",
    )
    docker("run", "-d", "--name", other, *health, IMAGE, *FOREVER)
    with target.connect() as connection:
        connection.start("POST", f"/containers/{unused_name}/start")
        assert inspected(target, unused_name)["State"]["Status"] == "created"
        assert connection.poll() == b""
        docker("exec", other, "touch", "/ok")
        assert connection.read_head()[0] == 204
    assert inspected(target, unused_name)["State"]["Running"]


def test_after_each_other(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    other = f"{unused_name}-b"
    sampan(target, "create", "--name", unused_name, "--after", other, IMAGE, *FOREVER)
    sampan(target, "create", "--name", other, "--after", unused_name, IMAGE, *FOREVER)
    refused = docker("start", unused_name, check=False)
    assert f"{unused_name} after {other} after {unused_name}" in refused.err
    sampan(target, "update", "--after", "", other)
    docker("start", other)
    docker("start", unused_name)


# -- --on-unhealthy ----------------------------------------------------------------------------

NEVER_HEALTHY = (
    *("--health-cmd", "test -e /ok", "--health-interval", "100ms"),
    *("--health-retries", "1"),
)


def test_restarted_within_a_budget(target: Engine, unused_name: str) -> None:
    options = ("--name", unused_name, "--on-unhealthy", "restart:1", "--rm", *NEVER_HEALTHY)
    sampan(target, "run", "-d", *options, IMAGE, *FOREVER)
    first = inspected(target, unused_name)["State"]["Pid"]
    wait_for(
        lambda: "on_unhealthy: budget spent" in actions(target, unused_name),
        "the budget to be spent",
    )
    found = inspected(target, unused_name)
    assert found["RestartCount"] == 1 and found["State"]["Pid"] not in (0, first)
    assert actions(target, unused_name).count("on_unhealthy: restart") == 1


def test_stopped(target: Engine, unused_name: str) -> None:
    options = ("--name", unused_name, "--on-unhealthy", "stop", "--restart", "always")
    sampan(target, "run", "-d", *options, *NEVER_HEALTHY, IMAGE, *FOREVER)
    wait_for(
        lambda: inspected(target, unused_name)["State"]["Status"] == "exited", "it to be stopped"
    )
    assert "on_unhealthy: stop" in actions(target, unused_name)
