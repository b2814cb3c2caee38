"""Hooks: when they run, where, what they are told, and what their failure means."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from sampan.errors import RuntimeFailure
from sampan.runtime import hooks

pytestmark = [pytest.mark.root, pytest.mark.vm]

Bundle = Any
Command = Any


def _script(bundle: Bundle, name: str, text: str) -> str:
    path = f"{bundle.path}/{name}"
    with open(path, "w") as file:
        file.write(f"#!/bin/sh\n{text}\n")
    os.chmod(path, 0o755)
    return path


def test_all_kinds_run_in_their_places(bundle: Bundle, oci: Command) -> None:
    """Order and namespaces as config.md says; each gets the state on stdin."""
    log = f"{bundle.path}/log"
    script = _script(bundle, "note", f'echo "$1 $(readlink /proc/self/ns/mnt) $(cat)" >> {log}')
    inside = f"{bundle.path}/rootfs/note"
    with open(inside, "w") as file:
        file.write('#!/bin/sh\necho "$1 $(readlink /proc/self/ns/mnt) $(cat)" >> /log\n')
    os.chmod(inside, 0o755)
    bundle.config["hooks"] = {
        kind: [{"path": script, "args": ["note", kind], "env": ["PATH=/usr/bin:/bin"]}]
        for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    bundle.config["hooks"]["startContainer"] = [
        {"path": "/note", "args": ["note", "startContainer"], "env": ["PATH=/bin"]}
    ]
    bundle.config["annotations"] = {"a": "b"}
    bundle.process["args"] = ["cat", "/log"]
    got = oci("run", "one")
    assert got.code == 0, got
    with open(log) as file:
        rows = [line.split(" ", 2) for line in file.read().splitlines()]
    assert [row[0] for row in rows] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ]
    ours = os.readlink("/proc/self/ns/mnt")
    assert [row[1] == ours for row in rows] == [True, True, False, True, True]
    states = [json.loads(row[2]) for row in rows]
    assert [state["status"] for state in states] == [
        "creating",
        "creating",
        "creating",
        "running",
        "stopped",
    ]
    assert all(state["id"] == "one" and state["annotations"] == {"a": "b"} for state in states)
    assert len({state.get("pid") for state in states[:4]}) == 1
    name, namespace, state = got.out.split(" ", 2)
    assert (name, namespace == ours, json.loads(state)["status"]) == (
        "startContainer",
        False,
        "created",
    )


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_failing_hook_stops_the_creation(bundle: Bundle, kind: str) -> None:
    script = _script(bundle, "fail", "echo sorry >&2; exit 3")
    bundle.config["hooks"] = {kind: [{"path": script}]}
    with pytest.raises(RuntimeFailure, match=f"{kind} hook #0: exit status 3.*sorry") as caught:
        bundle.create("true")
    assert caught.value.stage == "hook"


def test_failing_start_hook(bundle: Bundle) -> None:
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    container = bundle.create("true")
    with pytest.raises(RuntimeFailure, match="startContainer hook #0"):
        container.start()
    bundle.running.clear()


def test_hook_that_takes_too_long(bundle: Bundle) -> None:
    script = _script(bundle, "slow", "exec sleep 1000")
    with pytest.raises(RuntimeFailure, match="timed out after 1 s"):
        hooks.run_hooks("prestart", [{"path": script, "timeout": 1}], {})


def test_hook_that_does_not_exist(bundle: Bundle) -> None:
    with pytest.raises(RuntimeFailure, match="No such file"):
        hooks.run_hooks("prestart", [{"path": "/nosuch"}], {})
