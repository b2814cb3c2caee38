"""The cursor in the stream of events, beside clients that know nothing of it."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

from support.command import DockerCLI, docker_clis
from support.engines import IMAGE, SampanEngine

pytestmark = pytest.mark.root

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
FILTER = "type=container"


def make(engine: SampanEngine, name: str) -> str:
    """A container that makes two events; their container's ID."""
    made = engine.post("/containers/create", {"Image": IMAGE}, name=name)
    engine.delete(f"/containers/{name}")
    return str(made.json["Id"])


@pytest.mark.parametrize("version", list(docker_clis()) or ["none"])
def test_docker_clients_see_docker_fields(
    sampan: SampanEngine, unused_name: str, version: str
) -> None:
    """Every docker command line shows the container's ID, type and times as ever, and can go on behind
    an event by its time."""
    if version == "none":
        pytest.skip("needs the command docker")
    docker = sampan.cli(docker_clis()[version])
    since = f"{time.time():.9f}"
    identity = make(sampan, unused_name)
    until = f"{time.time():.9f}"
    window = ("--since", since, "--until", until)
    out = docker("events", *window, "-f", FILTER, "--format", "{{json .}}").out
    create, destroy = map(json.loads, out.splitlines())
    assert create["Actor"]["ID"] == destroy["Actor"]["ID"] == identity
    assert (create["Type"], create["Action"]) == ("container", "create")
    assert create.get("id", identity) == identity
    assert "Cursor" not in create
    assert identity in docker("events", *window, "-f", FILTER).out
    seconds, fraction = divmod(create["timeNano"] + 1, 10**9)
    behind = ("--since", f"{seconds}.{fraction:09d}", "--until", until)
    form = ("--format", "{{.Action}}")
    assert docker("events", *behind, "-f", FILTER, *form).out == "destroy\n"


def test_docker_py(sampan: SampanEngine, unused_name: str) -> None:
    """docker-py passes on the cursor that it finds beside docker's fields."""
    since = time.time()
    identity = make(sampan, unused_name)
    client = sampan.client()
    wanted = {"container": [unused_name]}
    stream = client.events(decode=True, since=since, filters=wanted)
    first = next(stream)
    stream.close()
    assert (first["Actor"]["ID"], first["Action"]) == (identity, "create")
    assert first["By"] == {"Uid": os.geteuid(), "Gid": os.getegid(), "Pid": os.getpid()}
    rest = client.events(decode=True, since=first["Cursor"], filters=wanted)
    assert next(rest)["Action"] == "destroy"
    rest.close()


def test_old_fields(sampan: SampanEngine, unused_name: str) -> None:
    """Versions that had `id` for the container's ID have it still."""
    since = f"{time.time():.9f}"
    identity = make(sampan, unused_name)
    until = f"{time.time():.9f}"
    answer = sampan.get("/v1.21/events", since=since, until=until)
    event = json.loads(answer.body.splitlines()[0])
    assert (event["id"], event["status"], event["from"]) == (identity, "create", IMAGE)


def test_own_command(sampan: SampanEngine, unused_name: str) -> None:
    """`sampan events --since ID`, with the templates' `.Cursor` and `.By`."""
    own = DockerCLI(SAMPAN, sampan.socket, sampan.config_directory)
    since = f"{time.time():.9f}"
    make(sampan, unused_name)
    until = f"{time.time():.9f}"
    form = ("--until", until, "-f", FILTER, "--format", "{{.Cursor}} {{.Action}} {{.By}}")
    first, second = own("events", "--since", since, *form).out.splitlines()
    cursor, action, *by = first.split()
    assert action == "create"
    assert by == [f"uid={os.geteuid()}", f"gid={os.getegid()}", f"pid={os.getpid()}"]
    assert own("events", "--since", cursor, *form).out == f"{second}\n"
    failed = own.fails("events", "--since", "e999999999", "--until", until)
    assert "no such event: e999999999; the last is e" in failed.err
