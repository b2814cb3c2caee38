"""Events: what happened, in order, once; past and future."""

from __future__ import annotations

import json
import time
from typing import Any

from support.command import DockerCLI
from support.engines import IMAGE, Engine


def past(target: Engine, since: float, **filters: list[str]) -> list[dict[str, Any]]:
    """All events since a moment until now."""
    answer = target.get(
        "/events", since=f"{since:.9f}", until=f"{time.time():.9f}", filters=filters
    )
    assert answer.status == 200, answer
    return [json.loads(line) for line in answer.body.splitlines()]


def test_life_of_a_container(target: Engine, newest_docker: DockerCLI, unused_name: str) -> None:
    since = time.time()
    newest_docker(
        "run",
        "--rm",
        "--name",
        unused_name,
        "--label",
        "a=b",
        IMAGE,
        "sh",
        "-c",
        "exit 3",
        check=False,
    )
    events = past(target, since, container=[unused_name])
    actions = [event["Action"] for event in events if event["Type"] == "container"]
    assert actions == ["create", "attach", "start", "die", "destroy"]
    die = next(event for event in events if event["Action"] == "die")
    attributes = die["Actor"]["Attributes"]
    assert (attributes["exitCode"], attributes["name"], attributes["image"], attributes["a"]) == (
        "3",
        unused_name,
        IMAGE,
        "b",
    )
    assert die["status"] == "die"
    assert die["id"] == die["Actor"]["ID"]
    assert die["from"] == IMAGE
    assert die["scope"] == "local"
    assert die["timeNano"] // 1_000_000_000 == die["time"]


def test_actions(target: Engine, newest_docker: DockerCLI, unused_name: str) -> None:
    since = time.time()
    docker = newest_docker
    docker("create", "--name", unused_name, IMAGE, "sleep", "60")
    docker("start", unused_name)
    docker("pause", unused_name)
    docker("unpause", unused_name)
    docker("exec", unused_name, "true")
    docker("rename", unused_name, unused_name + "2")
    docker("kill", unused_name + "2")
    docker("wait", unused_name + "2")
    docker("rm", unused_name + "2")
    actions = [event["Action"].strip() for event in past(target, since, type=["container"])]
    wanted = [
        "create",
        "start",
        "pause",
        "unpause",
        "exec_create: true",
        "exec_start: true",
        "exec_die",
        "rename",
        "kill",
        "die",
        "destroy",
    ]
    assert [action for action in actions if action in wanted] == wanted


def test_network_events(target: Engine, newest_docker: DockerCLI) -> None:
    since = time.time()
    newest_docker("run", "--rm", IMAGE, "true")
    assert [event["Action"] for event in past(target, since, type=["network"])] == [
        "connect",
        "disconnect",
    ]


def test_image_events(target: Engine, newest_docker: DockerCLI, unused_name: str) -> None:
    since = time.time()
    newest_docker("tag", IMAGE, f"{unused_name}:x")
    newest_docker("rmi", f"{unused_name}:x")
    assert [event["Action"] for event in past(target, since, type=["image"])] == ["tag", "untag"]


def test_stream_and_filters(target: Engine, newest_docker: DockerCLI, unused_name: str) -> None:
    with target.connect() as connection:
        connection.start(
            "GET",
            "/events",
            query={"filters": {"event": ["start", "die"], "container": [unused_name]}},
        )
        status, _, headers = connection.read_head()
        assert status == 200
        assert headers["content-type"].startswith("application/json")
        newest_docker("run", "--name", unused_name, IMAGE, "true")
        newest_docker("run", "--rm", IMAGE, "true")
        text = b""
        for chunk in connection.body(status, headers):
            text += chunk
            if text.count(b"\n") == 2:
                break
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["Action"] for event in events] == ["start", "die"]


def test_command(newest_docker: DockerCLI, unused_name: str) -> None:
    since = f"{time.time():.9f}"
    newest_docker("create", "--name", unused_name, IMAGE)
    until = f"{time.time():.9f}"
    form = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"
    out = newest_docker("events", "--since", since, "--until", until, "--format", form).out
    assert f"container create {unused_name}\n" in out
