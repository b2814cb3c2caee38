"""Logging in, searching, and looking into registries; on dockerd first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import docker.errors  # type: ignore[import-untyped]
import pytest

from api.conformance.conftest import Reachable
from support.command import DockerCLI
from support.engines import Engine
from support.faulty_proxy import Answer, FaultyProxy
from support.registries import PASSWORD, USER, Registry
from support.registry_images import layer, put_image

FOUND = {
    "num_results": 3,
    "query": "x",
    "results": [
        {"name": "one", "description": "The first\nof all", "star_count": 30, "is_official": True},
        {"name": "a/b", "description": "", "star_count": 2, "is_automated": True},
        {"name": "c/d", "description": "long " * 30, "star_count": 0},
    ],
}


@pytest.fixture
def index(registry: Registry, reachable: Reachable) -> Iterator[str]:
    """A registry that can be searched."""
    with closing(FaultyProxy(registry, host="127.0.0.1")) as proxy:
        proxy.fault(Answer(200, {}, b"{}"), path="^/v1/_ping", times=None)
        body = json.dumps(FOUND).encode()
        proxy.fault(Answer(200, {}, body), path="^/v1/search", times=None)
        reachable(proxy.address)
        yield proxy.address


# -- /auth -----------------------------------------------------------------------------------------


def test_auth(target: Engine, password_registry: Registry, reachable: Reachable) -> None:
    reachable(password_registry.address)
    me = {"username": USER, "password": PASSWORD, "serveraddress": password_registry.address}
    answer = target.post("/auth", me)
    assert (answer.status, answer.json) == (
        200,
        {"IdentityToken": "", "Status": "Login Succeeded"},
    )
    answer = target.post("/auth", {**me, "password": "wrong"})
    assert answer.status == 500
    assert answer.message == (
        f"login attempt to http://{password_registry.address}/v2/ failed with status: "
        "401 Unauthorized"
    )


def test_auth_with_a_token_server(
    target: Engine, token_registry: Registry, reachable: Reachable
) -> None:
    assert token_registry.tokens is not None
    reachable(token_registry.address, re.findall(r"//([^/]*)", token_registry.tokens.realm)[0])
    me = {"username": USER, "password": PASSWORD, "serveraddress": token_registry.address}
    answer = target.post("/auth", me)
    assert answer.json == {
        "IdentityToken": token_registry.tokens.identity_token,
        "Status": "Login Succeeded",
    }
    answer = target.post("/auth", {**me, "password": "wrong"})
    assert answer.status == 401
    assert answer.message == (
        f'Get "http://{token_registry.address}/v2/": unauthorized: incorrect username or password'
    )


def test_login_and_logout(
    docker: DockerCLI, target: Engine, password_registry: Registry, reachable: Reachable
) -> None:
    address = password_registry.address
    reachable(address)
    done = docker("login", "-u", USER, "--password-stdin", address, stdin=PASSWORD)
    assert "Login Succeeded" in done.out
    put_image(password_registry, "team/app", "v1", [layer(1000)])
    assert "Digest: sha256:" in docker("pull", f"{address}/team/app:v1").out
    docker("logout", address)
    refused = docker.fails("pull", f"{address}/team/app:v2")
    assert "no basic auth credentials" in refused.err
    target.delete(f"/images/{address}/team/app:v1", force=True)


# -- /distribution ---------------------------------------------------------------------------------


def test_distribution(target: Engine, registry: Registry, reachable: Reachable) -> None:
    reachable(registry.address)
    made = put_image(registry, "team/app", "v1", [layer(1000)], docker=True)
    for name in ("team/app:v1", f"team/app@{made.digest}", f"team/app:v1@{made.digest}"):
        answer = target.get(f"/distribution/{registry.address}/{name}/json")
        assert answer.status == 200, answer
        descriptor = answer.json["Descriptor"]
        assert descriptor["digest"] == made.digest
        assert descriptor["size"] == len(made.manifest.data)
        assert descriptor["mediaType"] == made.manifest.media_type
        assert [platform["os"] for platform in answer.json["Platforms"]] == ["linux"]


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("team/none:v1", 404, "manifest unknown: manifest unknown"),
        ("Team/app", 400, "invalid reference format: repository name must be lowercase"),
        ("team/app:", 400, "invalid reference format"),
    ],
)
def test_distribution_of_nothing(
    target: Engine, registry: Registry, reachable: Reachable, name: str, status: int, message: str
) -> None:
    reachable(registry.address)
    answer = target.get(f"/distribution/{registry.address}/{name}/json")
    assert (answer.status, answer.message) == (status, message)


def test_distribution_without_credentials(
    target: Engine, password_registry: Registry, reachable: Reachable
) -> None:
    reachable(password_registry.address)
    answer = target.get(f"/distribution/{password_registry.address}/a:v1/json")
    assert answer.status == 500
    assert answer.message == (
        f'Head "http://{password_registry.address}/v2/a/manifests/v1": no basic auth credentials'
    )


# -- search ----------------------------------------------------------------------------------------


def test_search(target: Engine, index: str) -> None:
    answer = target.get("/images/search", term=f"{index}/x")
    assert answer.status == 200, answer
    assert answer.json == [
        {
            "star_count": item["star_count"],
            "is_official": item.get("is_official", False),
            "name": item["name"],
            "is_automated": item.get("is_automated", False),
            "description": item["description"],
        }
        for item in FOUND["results"]  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ('{"is-official":["true"]}', ["one"]),
        ('{"is-official":["false"]}', ["a/b", "c/d"]),
        ('{"is-automated":["true"]}', ["a/b"]),
        ('{"stars":["2"]}', ["one", "a/b"]),
        ('{"stars":["1","20"]}', ["one"]),
    ],
)
def test_search_filters(target: Engine, index: str, filters: str, names: list[str]) -> None:
    answer = target.get("/images/search", term=f"{index}/x", filters=filters)
    assert [item["name"] for item in answer.json] == names


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("limit=101", 400, "Limit 101 is outside the range of [1, 100]"),
        ("limit=-1", 400, "Limit -1 is outside the range of [1, 100]"),
        ('filters={"bad":["1"]}', 400, "Invalid filter 'bad'"),
        ('filters={"stars":["a"]}', 400, "Invalid filter 'stars=a'"),
        ('filters={"is-official":["maybe"]}', 400, "Invalid filter 'is-official=[maybe]'"),
    ],
)
def test_a_search_that_is_refused(
    target: Engine, index: str, query: str, status: int, message: str
) -> None:
    answer = target.request("GET", f"/images/search?term={quote(index)}/x&{quote(query, safe='=')}")
    assert (answer.status, answer.message) == (status, message)


def test_search_command(docker: DockerCLI, index: str) -> None:
    lines = docker("search", f"{index}/x").out.splitlines()
    assert lines[0].split()[:2] == ["NAME", "DESCRIPTION"]
    assert lines[1].split() == ["one", "The", "first", "of", "all", "30", "[OK]"]
    assert len(lines) == 4


# -- pulls that are refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (Answer(500), 500, "received unexpected HTTP status: 500 Internal Server Error"),
        (
            Answer(429, {}, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'),
            500,
            "toomanyrequests: slow down",
        ),
        (
            Answer(403, {}, b"<html>"),
            500,
            (
                "error parsing HTTP 403 response body: invalid character '<' looking for beginning of "
                'value: "<html>"'
            ),
        ),
        (
            Answer(403, {}, b'{"errors":[{"code":"DENIED","message":"no"}]}'),
            404,
            (
                "pull access denied for ADDRESS/a, repository does not exist or may require "
                "'docker login': denied: no"
            ),
        ),
        (
            Answer(400, {}, b'{"errors":[{"code":"NAME_INVALID","message":"one"},{"code":"X"}]}'),
            500,
            "name invalid: one",
        ),
    ],
    ids=["500", "429", "html", "denied", "two"],
)
def test_a_registry_that_refuses(
    target: Engine,
    registry: Registry,
    reachable: Reachable,
    answer: Answer,
    status: int,
    message: str,
) -> None:
    with closing(FaultyProxy(registry, host="127.0.0.1")) as proxy:
        reachable(proxy.address)
        proxy.fault(answer, path="/manifests/", times=None)
        refused = target.post("/images/create", fromImage=f"{proxy.address}/a", tag="v1")
    assert (refused.status, refused.message) == (
        status,
        message.replace("ADDRESS", proxy.address),
    )


def test_a_token_that_is_refused(
    target: Engine, token_registry: Registry, reachable: Reachable
) -> None:
    assert token_registry.tokens is not None
    reachable(token_registry.address, re.findall(r"//([^/]*)", token_registry.tokens.realm)[0])
    refused = target.post("/images/create", fromImage=f"{token_registry.address}/a", tag="v1")
    assert (refused.status, refused.message) == (
        404,
        (
            f"pull access denied for {token_registry.address}/a, repository does not exist or may "
            "require 'docker login': denied: requested access to the resource is denied"
        ),
    )


def test_docker_py(
    target: Engine, password_registry: Registry, reachable: Reachable, index: str
) -> None:
    """Its login goes along with what it asks later."""
    address = password_registry.address
    reachable(address)
    made = put_image(password_registry, "team/app", "v1", [layer(1000)], docker=True)
    client = target.client()
    assert client.login(USER, PASSWORD, registry=address)["Status"] == "Login Succeeded"
    data = client.images.get_registry_data(f"{address}/team/app:v1")
    assert data.id == made.digest and data.has_platform("linux/amd64")
    with pytest.raises(docker.errors.NotFound):
        client.images.get_registry_data(f"{address}/team/app:none")
    assert [item["name"] for item in client.images.search(f"{index}/x", limit=2)][:1] == ["one"]
