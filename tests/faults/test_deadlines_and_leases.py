"""Deadlines, leases, start order and --on-unhealthy over `kill -9` of the daemon, its end, and a reboot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

from support.engines import IMAGE, SampanEngine, parent
from support.waiting import wait_for

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
SECOND = 1_000_000_000


def inspected(engine: SampanEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.get(f"/containers/{name}/json").json
    return found


def gone(engine: SampanEngine, path: str) -> bool:
    return engine.get(path).status == 404


def run(engine: SampanEngine, name: str, script: str = "exec sleep 600", **host: Any) -> int:
    """Start a container; its pid."""
    check = host.pop("Healthcheck", None)
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": host, "Healthcheck": check}
    assert engine.post("/containers/create", body, name=name).status == 201
    assert engine.post(f"/containers/{name}/start").status == 204
    return int(inspected(engine, name)["State"]["Pid"])


def actions(engine: SampanEngine, *wanted: str) -> list[tuple[str, str]]:
    """(name, action) of the events of containers so far, in their order."""
    answer = engine.get("/events", since="1", until=f"{time.time():.6f}")
    rows = [json.loads(line) for line in answer.body.splitlines()]
    return [
        (row["Actor"]["Attributes"].get("name", ""), row["Action"])
        for row in rows
        if row["Action"] in wanted
    ]


def exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_deadlines_over_the_end_of_the_daemon(own_sampan: SampanEngine) -> None:
    """What fell due meanwhile ends at the start of the next; the rest keeps its time."""
    engine = own_sampan
    run(engine, "soon", Annotations={"sampan.ttl": "300ms"}, RestartPolicy={"Name": "always"})
    run(engine, "later", Annotations={"sampan.ttl": "1h"})
    began_s = time.monotonic()
    engine.kill()
    wait_for(lambda: time.monotonic() - began_s > 0.4, "the time to be over")
    engine.start()
    wait_for(lambda: gone(engine, "/containers/soon/json"), "the end of what was due")
    assert inspected(engine, "later")["State"]["Running"]


def test_an_exec_ends_in_time_without_a_daemon(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    run(engine, "box", "trap : TERM; while true; do sleep 1; done")
    script = "(setsid sleep 773 &); exec sleep 774"
    body = {"Cmd": ["sh", "-c", script], "AttachStdout": True, "Timeout": 3 * SECOND}
    identity = engine.post("/containers/box/exec", body).json["Id"]
    with engine.connect() as client:
        client.hijack(f"/exec/{identity}/start", body={})
        pid = int(engine.get(f"/exec/{identity}/json").json["Pid"])
        engine.kill()
        assert list(client.rest()) == []
    wait_for(lambda: not exists(pid), "the end of the process")
    engine.start()
    rows = engine.get("/containers/box/top", ps_args="-eo pid,args").json["Processes"]
    assert not any("sleep 77" in row[-1] and "<defunct>" not in row[-1] for row in rows), rows


def test_a_lease_outlives_the_daemon_and_not_its_client(own_sampan: SampanEngine) -> None:
    """The holder connects with the next daemon; when it is killed then, all goes."""
    engine = own_sampan
    command = [SAMPAN, "-H", f"unix://{engine.socket}", "lease", "hold", "held"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        run(engine, "box", Annotations={"sampan.lease": "held"})
        for end in (engine.kill, engine.terminate):
            end()
            engine.start()
            wait_for(
                lambda: engine.get("/leases/held").json["Holders"] == 1, "the holder to be back"
            )
            assert inspected(engine, "box")["State"]["Running"]
    finally:
        holder.kill()
        holder.communicate()
    wait_for(lambda: gone(engine, "/leases/held"), "the lease to end")
    assert gone(engine, "/containers/box/json")


def test_leases_without_a_client_end_with_the_next_daemon(own_sampan: SampanEngine) -> None:
    """They have their whole time again, and end after it; one that was ending goes on with that."""
    engine = own_sampan
    for name, ttl in (("short", 1), ("long", 3600), ("ending", 3600)):
        assert engine.post("/leases/create", {"Name": name, "TTL": ttl * SECOND}).status == 201
        run(engine, f"under-{name}", Annotations={"sampan.lease": name})
    volume = {"Name": "data", "Labels": {"sampan.lease": "ending"}}
    assert engine.post("/volumes/create", volume).status == 201
    run(engine, "user", Binds=["data:/data"])
    assert engine.delete("/leases/ending").status == 409
    engine.kill()
    engine.start()
    wait_for(lambda: gone(engine, "/leases/short"), "the end of a lease that nobody renews")
    assert gone(engine, "/containers/under-short/json")
    assert inspected(engine, "under-long")["State"]["Running"]
    assert engine.get("/leases/ending").json["Status"] == "ending"
    assert engine.delete("/containers/user", force=True).status == 204
    assert engine.delete("/leases/ending").status in (204, 404)
    assert gone(engine, "/volumes/data")


def test_killed_while_it_restarts_an_unhealthy_container(own_sampan: SampanEngine) -> None:
    """The container has no restart policy; the next daemon starts it all the same."""
    engine = own_sampan
    shared = os.path.join(engine.directory, "shared")
    os.mkdir(shared)
    script = "trap 'touch /shared/asked; until test -e /shared/go; do usleep 5000; done; exit 0' TERM; touch /shared/up; while true; do usleep 5000; done"
    first = run(
        engine, "box", script, Binds=[f"{shared}:/shared"],
        Annotations={"sampan.on-unhealthy": "restart"},
        Healthcheck={"Test": ["CMD", "test", "-e", "/shared/go"], "Interval": SECOND // 5, "Retries": 1},
    )  # fmt: skip
    wait_for(lambda: os.path.exists(f"{shared}/asked"), "it to be asked to end")
    engine.kill()
    with open(f"{shared}/go", "w"):
        pass
    wait_for(lambda: not exists(first), "its end")
    engine.start()
    wait_for(lambda: inspected(engine, "box")["State"]["Pid"] not in (0, first), "its restart")
    assert inspected(engine, "box")["RestartCount"] == 1


def test_start_order_after_a_reboot(own_sampan: SampanEngine) -> None:
    """Made last, started first: what others start after."""
    engine = own_sampan
    always = {"Name": "always"}
    check = {"Test": ["CMD-SHELL", "true"], "Interval": SECOND // 5}
    for name, after in (("web", "app:healthy"), ("app", "db:healthy"), ("db", "")):
        body = {
            "Image": IMAGE, "Cmd": ["sleep", "600"], "Healthcheck": check,
            "HostConfig": {"RestartPolicy": always, "Annotations": {"sampan.after": after}},
        }  # fmt: skip
        assert engine.post("/containers/create", body, name=name).status == 201
    for name in ("db", "app", "web"):
        assert engine.post(f"/containers/{name}/start").status == 204
    pids = [inspected(engine, name)["State"]["Pid"] for name in ("db", "app", "web")]
    engine.kill()
    for pid in pids:
        os.kill(parent(pid), 9)
    for pid in pids:
        wait_for(lambda pid=pid: not exists(pid), "the machine to be off")
    shutil.rmtree(os.path.join(engine.exec_root, "shims"))
    engine.start()
    wait_for(lambda: inspected(engine, "web")["State"]["Running"], "the last one")
    wait_for(
        lambda: inspected(engine, "web")["State"]["Status"] == "running", "the last one's start"
    )
    order = actions(engine, "start", "health_status: healthy")[-6:]
    assert [row for row in order if row != ("web", "health_status: healthy")][-5:] == [
        ("db", "start"),
        ("db", "health_status: healthy"),
        ("app", "start"),
        ("app", "health_status: healthy"),
        ("web", "start"),
    ]


@pytest.mark.parametrize("how", ["stop", "remove", "leave"])
def test_a_start_that_waits_is_given_up(own_sampan: SampanEngine, how: str) -> None:
    """By a stop, a removal, and the client's leaving; what it waited for starts nothing later."""
    engine = own_sampan
    check = {"Test": ["CMD", "test", "-e", "/ready"], "Interval": 20_000_000}
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "Healthcheck": check, "HostConfig": {"NetworkMode": "none"}}  # fmt: skip
    assert engine.post("/containers/create", body, name="db").status == 201
    assert engine.post("/containers/db/start").status == 204
    after = {"NetworkMode": "none", "Annotations": {"sampan.after": "db:healthy"}}
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": after}
    assert engine.post("/containers/create", body, name="web").status == 201
    with engine.connect() as client:
        client.start("POST", "/containers/web/start")
        wait_for(lambda: "container web waits" in engine.log(), "the start to wait")
        if how == "stop":
            assert engine.post("/containers/web/stop").status == 204
            status, _, headers = client.read_head()
            assert status == 409
            assert b"it was stopped while it waited" in b"".join(client.body(status, headers))
            assert engine.post("/containers/web/stop").status == 304
        elif how == "remove":
            assert engine.delete("/containers/web").status == 204
            assert client.read_head()[0] == 404
    wait_for(lambda: "container web waits no more" in engine.log(), "the start to be given up")
    pid = engine.get("/containers/db/json").json["State"]["Pid"]
    with open(f"/proc/{pid}/root/ready", "w"):
        pass
    healthy = {"health": ["healthy"]}
    wait_for(lambda: engine.get("/containers/json", filters=healthy).json, "db to be healthy")
    present = {c["Names"][0]: c["State"] for c in engine.get("/containers/json", all=True).json}
    assert present.get("/web", "created") == "created"
    if how != "remove":
        assert engine.post("/containers/web/start").status == 204


@pytest.mark.parametrize("alive", [True, False], ids=["running", "ended"])
def test_the_end_of_an_exec_is_that_of_all_it_started(
    own_sampan: SampanEngine, alive: bool
) -> None:
    """Also of what forked twice into a session of its own, and when the exec itself has ended."""
    engine = own_sampan
    run(engine, "box")
    script = "(setsid sh -c 'sleep 881 & echo up; sleep 882' >/dev/null &); " + ("exec sleep 883" if alive else "exit 4")  # fmt: skip
    body = {"Cmd": ["sh", "-c", script], "Timeout": 3600 * SECOND}
    identity = engine.post("/containers/box/exec", body).json["Id"]
    assert engine.post(f"/exec/{identity}/start", {"Detach": True}).status == 200

    def commands() -> list[str]:
        answer = engine.get("/containers/box/top", ps_args="-eo pid,args").json
        return [row[-1] for row in answer["Processes"] if "sleep 88" in row[-1]]

    wait_for(lambda: len(commands()) == (3 if alive else 2), "all to be there")
    if not alive:
        wait_for(lambda: engine.get(f"/exec/{identity}/json").json["ExitCode"] == 4, "its end")
    assert engine.delete(f"/exec/{identity}").status == 204
    assert commands() == []
    assert engine.get("/containers/box/json").json["State"]["Running"]
