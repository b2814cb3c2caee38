"""Answers against Docker's own description of them, and the words of `docker ps`."""

from __future__ import annotations

import os
from typing import Any

import pytest
from jsonschema import Draft4Validator, ValidationError

from api.fakes import Api
from sampan.api.shapes.containers import command, status_text
from sampan.api.shapes.durations import DAY, HOUR, MINUTE, SECOND, human_duration
from sampan.engine.container import State, Status

SPECS = os.environ.get(
    "SAMPAN_SPECS",
    os.path.join(os.path.dirname(__file__), "../../../shared/specs"),
)
DESCRIPTION = os.path.join(SPECS, "docker/engine-api-v1.55.yaml")


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    """The API description as JSON schema: `x-nullable` said in JSON schema's words."""
    yaml = pytest.importorskip("yaml")
    if not os.path.exists(DESCRIPTION):
        pytest.skip(f"needs {DESCRIPTION}")
    with open(DESCRIPTION, encoding="utf-8") as file:
        loaded = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    # A pointer in Go: null where the kernel decides, as dockerd shows it.
    swappiness = loaded["definitions"]["Resources"]["properties"]["MemorySwappiness"]
    swappiness["x-nullable"] = True
    return as_schema({"definitions": loaded["definitions"], "paths": loaded["paths"]})


def as_schema(value: Any) -> Any:
    if isinstance(value, list):
        return [as_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    schema = {
        key: as_schema(item) for key, item in value.items() if key not in ("example", "format")
    }
    if schema.pop("x-nullable", False) or is_container(schema):
        return {"anyOf": [{"type": "null"}, schema]}
    return schema


def is_container(schema: dict[str, Any]) -> bool:
    """Go's nil maps and slices are null, which the description does not say everywhere."""
    return schema.get("type") in ("array", "object") and isinstance(schema.get("type"), str)


def check(description: dict[str, Any], definition: str, value: Any) -> None:
    schema = {"$ref": f"#/definitions/{definition}", "definitions": description["definitions"]}
    errors = [text for error in Draft4Validator(schema).iter_errors(value) for text in told(error)]
    assert not errors
    assert not set(value) - names(description, definition), "fields that Docker does not have"


def told(error: ValidationError) -> list[str]:
    """What is wrong, behind the alternatives "null or …"."""
    behind = [inner for inner in error.context or () if inner.schema_path[0] == 1]
    if behind:
        return [text for inner in behind for text in told(inner)]
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"]


def names(description: dict[str, Any], definition: str) -> set[str]:
    """All property names of a definition, those of its `allOf` parts too."""
    found: set[str] = set()
    todo = [description["definitions"][definition]]
    while todo:
        schema = todo.pop()
        found |= set(schema.get("properties", ()))
        for part in [*schema.get("allOf", ()), *schema.get("anyOf", ())]:
            reference = part.get("$ref", "")
            todo.append(
                description["definitions"][reference.rpartition("/")[2]] if reference else part
            )
    return found


FULL = {
    "Cmd": ["sh"],
    "Env": ["A=b"],
    "ExposedPorts": {"80/tcp": {}},
    "StopTimeout": 3,
    "Healthcheck": {"Test": ["NONE"]},
    "HostConfig": {
        "Memory": 64 << 20,
        "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b"}],
        "Tmpfs": {"/t": ""},
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "RestartPolicy": {"Name": "no"},
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        "Init": False,
        "Sysctls": {"a": "b"},
        "Annotations": {"a": "b"},
    },
}


@pytest.mark.parametrize("fields", [{}, FULL], ids=["bare", "full"])
async def test_inspect(api: Api, description: dict[str, Any], fields: dict[str, Any]) -> None:
    await api.container(**fields)
    for size in ("", "?size=1"):
        _, answer = await api.ask("GET", f"/v1.55/containers/box/json{size}")
        check(description, "ContainerInspectResponse", answer)
        for name, definition in (("HostConfig", "HostConfig"), ("Config", "ContainerConfig")):
            check(description, definition, answer[name])
        check(description, "ContainerState", answer["State"])
        check(description, "NetworkSettings", answer["NetworkSettings"])
        assert ("SizeRw" in answer) is bool(size)


async def test_inspect_shows_what_was_asked(api: Api) -> None:
    await api.container(**FULL)
    _, answer = await api.ask("GET", "/containers/box/json")
    host = answer["HostConfig"]
    assert answer["Name"] == "/box"
    assert answer["Config"]["Env"] == ["A=b"]
    assert answer["Config"]["StopTimeout"] == 3
    assert host["Mounts"] == [{"Type": "bind", "Source": "/a", "Target": "/b"}]
    assert host["Init"] is False
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert "/proc/kcore" in host["MaskedPaths"]
    assert answer["State"]["StartedAt"] == "0001-01-01T00:00:00Z"


async def test_what_says_nothing_is_left_out(api: Api) -> None:
    await api.container()
    _, answer = await api.ask("GET", "/containers/box/json")
    assert not {"Healthcheck", "StopTimeout", "Shell", "ExposedPorts"} & set(answer["Config"])
    assert not {"Mounts", "Init", "Tmpfs", "Sysctls", "Annotations"} & set(answer["HostConfig"])


async def test_list(api: Api, description: dict[str, Any]) -> None:
    await api.container(**FULL)
    await api.ask("POST", "/containers/box/start")
    _, answer = await api.ask("GET", "/v1.55/containers/json?size=1")
    assert len(answer) == 1
    check(description, "ContainerSummary", answer[0])
    assert answer[0]["Names"] == ["/box"]
    assert answer[0]["Command"] == "sh -c 'echo a b'"
    assert answer[0]["State"] == "running"
    assert answer[0]["Status"] == "Up Less than a second"
    assert answer[0]["SizeRootFs"] == 1244


async def test_images(api: Api, description: dict[str, Any]) -> None:
    _, answer = await api.ask("GET", "/v1.55/images/busybox/json")
    check(description, "ImageInspect", answer)
    _, answers = await api.ask("GET", "/v1.55/images/json")
    check(description, "ImageSummary", answers[0])


async def test_an_exec(api: Api, description: dict[str, Any]) -> None:
    await api.container()
    _, created = await api.ask("POST", "/containers/box/exec", {"Cmd": ["a", "b"], "User": "me"})
    _, answer = await api.ask("GET", f"/exec/{created['Id']}/json")
    responses = description["paths"]["/exec/{id}/json"]["get"]["responses"]
    schema = {
        **responses[200]["schema"]["anyOf"][1],
        "definitions": description["definitions"],
    }
    Draft4Validator(schema).validate({**answer, "ExitCode": answer["ExitCode"] or 0})
    assert set(answer) <= set(schema["properties"])
    assert answer["ProcessConfig"] == {
        "tty": False,
        "entrypoint": "a",
        "arguments": ["b"],
        "privileged": False,
        "user": "me",
    }
    assert (answer["Running"], answer["ExitCode"]) == (False, None)


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [
        (0, "Less than a second"),
        (SECOND, "1 second"),
        (59 * SECOND, "59 seconds"),
        (MINUTE, "About a minute"),
        (2 * MINUTE - 1, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (60 * MINUTE - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (89 * MINUTE, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations_in_docker_s_words(span_ns: int, text: str) -> None:
    assert human_duration(span_ns) == text


NOW = 1_000 * DAY


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(status=Status.RUNNING, started_ns=NOW - 5 * MINUTE), "Up 5 minutes"),
        (State(status=Status.PAUSED, started_ns=NOW - HOUR), "Up About an hour (Paused)"),
        (
            State(status=Status.EXITED, exit_code=137, finished_ns=NOW - 3 * SECOND),
            "Exited (137) 3 seconds ago",
        ),
        (State(status=Status.EXITED), ""),
        (State(status=Status.REMOVING), "Removal In Progress"),
        (State(status=Status.DEAD), "Dead"),
    ],
)
def test_the_status_of_docker_ps(state: State, text: str) -> None:
    assert status_text(state, NOW) == text


def test_the_command_of_docker_ps() -> None:
    assert command("sh", ["-c", "echo a b", "x"]) == "sh -c 'echo a b' x"


async def test_every_route_of_docker_is_built_or_named(
    api: Api, description: dict[str, Any]
) -> None:
    """A route of the description is never an unknown page: it works, or says what is missing."""
    unknown = []
    for path, methods in description["paths"].items():
        concrete = path.replace("{id}", "nosuch").replace("{name}", "nosuch")
        for method in methods:
            if method == "parameters" or path in ("/events", "/containers/{id}/attach/ws"):
                continue
            status, answer = await api.ask(method.upper(), f"/v1.55{concrete}")
            if status == 404 and isinstance(answer, dict) and answer["message"] == "page not found":
                unknown.append(f"{method} {path}")
    assert not unknown
