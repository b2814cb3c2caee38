"""Shims and fork servers die; containers are reported, nothing hangs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.engines import IMAGE, SampanEngine, parent
from support.http import demultiplex
from support.waiting import wait_for


def start(engine: SampanEngine, name: str, *command: str) -> dict[str, Any]:
    answer = engine.post(
        "/containers/create", {"Image": IMAGE, "Cmd": list(command or ("sleep", "600"))}, name=name
    )
    assert answer.status == 201, answer
    assert engine.post(f"/containers/{name}/start").status == 204
    found: dict[str, Any] = engine.get(f"/containers/{name}/json").json["State"]
    return found


def test_shim_killed(engine: SampanEngine, unused_name: str) -> None:
    pid = start(engine, unused_name)["Pid"]
    with (
        engine.connect() as waiting,
        engine.connect() as following,
        engine.connect() as attached,
        engine.connect() as executing,
    ):
        waiting.start("POST", f"/containers/{unused_name}/wait")
        following.start("GET", f"/containers/{unused_name}/logs", query={"follow": 1, "stdout": 1})
        attached.hijack(f"/containers/{unused_name}/attach", query={"stream": 1, "stdout": 1})
        body = {"Cmd": ["sleep", "600"], "AttachStdout": True}
        identity = engine.post(f"/containers/{unused_name}/exec", body).json["Id"]
        executing.hijack(f"/exec/{identity}/start", body={})
        os.kill(parent(pid), 9)
        assert waiting.finish(*waiting.read_head()).json["StatusCode"] == 137
        assert following.finish(*following.read_head()).body == b""
        assert b"".join(attached.rest()) == b""
        demultiplex(b"".join(executing.rest()))  # it ends; it may say that the container is gone
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the container's process to be gone")
    found = engine.get(f"/containers/{unused_name}/json").json["State"]
    assert (found["Status"], found["ExitCode"], found["Pid"]) == ("exited", 137, 0)
    assert not engine.get(f"/exec/{identity}/json").json["Running"]
    assert engine.post(f"/containers/{unused_name}/start").status == 204
    assert engine.post(f"/containers/{unused_name}/stop", t=0).status == 204


def test_zygote_killed(engine: SampanEngine, unused_name: str) -> None:
    pid = start(engine, unused_name)["Pid"]
    zygote = engine.zygote_pid()
    os.kill(zygote, 9)
    assert engine.get(f"/containers/{unused_name}/json").json["State"]["Pid"] == pid
    start(engine, unused_name + "2")
    assert engine.zygote_pid() != zygote
    body = {"Cmd": ["true"], "AttachStdout": True}
    identity = engine.post(f"/containers/{unused_name}/exec", body).json["Id"]
    assert engine.post(f"/exec/{identity}/start", {}).status == 200
    assert engine.post(f"/containers/{unused_name}/kill").status == 204
    assert engine.post(f"/containers/{unused_name}/wait").json["StatusCode"] == 137


def test_zygote_killed_under_starts(engine: SampanEngine, unused_name: str) -> None:
    """Each start either works or says what happened; the engine goes on."""
    names = [f"{unused_name}{number}" for number in range(12)]
    for name in names:
        engine.post("/containers/create", {"Image": IMAGE, "Cmd": ["sleep", "600"]}, name=name)
    with ThreadPoolExecutor(13) as pool:
        futures = [pool.submit(engine.post, f"/containers/{name}/start") for name in names]
        os.kill(engine.zygote_pid(), 9)
        answers = [future.result() for future in futures]
    for name, answer in zip(names, answers, strict=True):
        running = engine.get(f"/containers/{name}/json").json["State"]["Running"]
        assert running == (answer.status == 204), (name, answer)
        assert answer.status in (204, 500, 503), answer
    start(engine, unused_name + "x")


def test_init_killed_from_outside(engine: SampanEngine, unused_name: str) -> None:
    pid = start(engine, unused_name)["Pid"]
    os.kill(pid, 9)
    assert engine.post(f"/containers/{unused_name}/wait").json["StatusCode"] == 137


def test_exec_that_leaves_children_ends_with_the_container(
    engine: SampanEngine, unused_name: str
) -> None:
    pid = start(engine, unused_name)["Pid"]
    body = {"Cmd": ["sh", "-c", "sleep 601 & sleep 602 & exit 0"], "AttachStdout": False}
    identity = engine.post(f"/containers/{unused_name}/exec", body).json["Id"]
    assert engine.post(f"/exec/{identity}/start", {"Detach": True}).status == 200
    processes = wait_for(
        lambda: (lambda rows: rows if len(rows) == 3 else None)(
            engine.get(f"/containers/{unused_name}/top", ps_args="-o pid,args").json["Processes"]
        ),
        "the children to run",
    )
    engine.delete(f"/containers/{unused_name}", force=1)
    wait_for(
        lambda: not any(os.path.exists(f"/proc/{row[0]}") for row in processes), "all to be dead"
    )
    assert not os.path.exists(f"/proc/{pid}")
