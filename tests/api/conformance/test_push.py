"""Pushing through real clients to a real registry."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from api.conformance.conftest import Reachable
from support.command import DockerCLI
from support.engines import Engine
from support.faulty_proxy import Answer, FaultyProxy
from support.registries import PASSWORD, USER, Registry
from support.rootfs import image_tar
from support.tars import archive, file


@pytest.fixture
def image(target: Engine) -> Iterator[str]:
    """An image of three layers that no registry has seen; its names are gone afterwards."""
    name = "p" + secrets.token_hex(4)
    layers = [
        archive([file(f"{name}/{number}", os.urandom(20_000 * number))]) for number in range(3)
    ]
    loaded = target.request("POST", "/images/load", raw=image_tar(f"{name}:1", layers, {}))
    assert loaded.status == 200, loaded
    identity = target.get(f"/images/{name}:1/json").json["Id"]
    yield f"{name}:1"
    target.delete(f"/images/{identity}", force=True)


@pytest.fixture
def place(registry: Registry, reachable: Reachable) -> str:
    """Where to push to."""
    reachable(registry.address)
    return registry.address


def short_ids(target: Engine, image: str) -> list[str]:
    layers = target.get(f"/images/{image}/json").json["RootFS"]["Layers"]
    return [diff_id[7:19] for diff_id in layers]


def lines(target: Engine, path: str, credentials: object = None, **query: object) -> list[Any]:
    """The messages of a push."""
    header = base64.urlsafe_b64encode(json.dumps(credentials or {}).encode()).decode()
    answer = target.request("POST", path, query=query, headers={"X-Registry-Auth": header})
    assert answer.status == 200, answer
    return [json.loads(line) for line in answer.body.splitlines()]


def test_push(
    docker: DockerCLI, target: Engine, registry: Registry, place: str, image: str
) -> None:
    """What the registry has afterwards is the image, and it has a name by digest."""
    docker("tag", image, f"{place}/team/app:1")
    done = docker("push", f"{place}/team/app:1")
    assert done.out.startswith(f"The push refers to repository [{place}/team/app]\n")
    for short in short_ids(target, image):
        assert f"{short}: Pushed" in done.out
    manifest = registry.manifest("team/app", "1")
    digest = manifest.headers["docker-content-digest"]
    assert f"1: digest: {digest} size: {len(manifest.body)}\n" in done.out
    inspected = target.get(f"/images/{image}/json").json
    assert manifest.json["config"]["digest"] == inspected["Id"]
    assert inspected["RepoDigests"] == [f"{place}/team/app@{digest}"]
    assert digest in docker("images", "--digests", f"{place}/team/app").out
    again = docker("push", f"{place}/team/app:1")
    assert again.out.count(": Layer already exists") == 3
    assert again.out.splitlines()[-1] == done.out.splitlines()[-1]


def test_default_tag_and_quiet(docker: DockerCLI, place: str, image: str) -> None:
    docker("tag", image, f"{place}/quiet")
    assert docker("push", "-q", f"{place}/quiet").out == f"{place}/quiet:latest\n"
    assert docker("push", f"{place}/quiet").out.startswith("Using default tag: latest\n")


def test_all_tags(docker: DockerCLI, registry: Registry, place: str, image: str) -> None:
    for tag in ("1", "2", "other"):
        docker("tag", image, f"{place}/many:{tag}")
    done = docker("push", "-a", f"{place}/many")
    assert registry.tags("many") == ["1", "2", "other"]
    assert done.out.count("digest: sha256:") == 3
    refused = docker.fails("push", "-a", f"{place}/many:1")
    assert "tag can't be used with --all-tags/-a" in refused.err


def test_mount(
    docker: DockerCLI, target: Engine, registry: Registry, place: str, image: str
) -> None:
    """What the registry has in another repository is not sent again."""
    docker("tag", image, f"{place}/first:1")
    docker("tag", image, f"{place}/second:1")
    docker("push", f"{place}/first:1")
    stored = registry.stored_bytes()
    done = docker("push", f"{place}/second:1")
    for short in short_ids(target, image):
        assert f"{short}: Mounted from first" in done.out
    assert registry.stored_bytes() == stored
    assert registry.manifest("second", "1").body == registry.manifest("first", "1").body


def test_nothing_to_push(docker: DockerCLI, place: str, image: str) -> None:
    docker("tag", image, f"{place}/app:1")
    for name, text in {
        f"{place}/none": f"An image does not exist locally with the tag: {place}/none",
        f"{place}/app:no": f"tag does not exist: {place}/app:no",
        f"{place}/app@sha256:{'a' * 64}": "cannot push a digest reference",
    }.items():
        refused = docker.fails("push", name)
        assert text in refused.err, refused


def test_the_stream(target: Engine, place: str, image: str) -> None:
    """Top layer first; the result for programs is the last message."""
    assert target.post(f"/images/{image}/tag", repo=f"{place}/app", tag="1").status == 201
    messages = lines(target, f"/images/{place}/app/push", tag="1")
    shorts = short_ids(target, image)
    assert messages[0] == {"status": f"The push refers to repository [{place}/app]"}
    preparing = [m["id"] for m in messages if m.get("status") == "Preparing"]
    assert preparing == shorts[::-1]
    pushed = [m for m in messages if m.get("status") == "Pushed"]
    assert sorted(m["id"] for m in pushed) == sorted(shorts)
    assert all(m["progressDetail"] == {} for m in pushed)
    result = messages[-1]["aux"]
    assert messages[-1] == {"progressDetail": {}, "aux": result}
    assert set(result) == {"Tag", "Digest", "Size"} and result["Tag"] == "1"
    assert messages[-2] == {
        "status": f"1: digest: {result['Digest']} size: {result['Size']}",
    }


def test_push_by_docker_py(target: Engine, registry: Registry, place: str, image: str) -> None:
    client = target.client()
    client.images.get(image).tag(f"{place}/py", "1")
    messages = list(client.images.push(f"{place}/py", tag="1", stream=True, decode=True))
    assert registry.tags("py") == ["1"]
    assert messages[-1]["aux"]["Tag"] == "1"
    failed = client.images.push(f"{place}/py", tag="none")
    assert "tag does not exist" in failed


def test_an_event(target: Engine, docker: DockerCLI, place: str, image: str) -> None:
    since = target.get("/info").json["SystemTime"]
    docker("tag", image, f"{place}/evented:1")
    docker("push", f"{place}/evented:1")
    until = target.get("/info").json["SystemTime"]
    filters = {"event": ["push"]}
    seen = target.get("/events", since=_seconds(since), until=_seconds(until, 1), filters=filters)
    events = [json.loads(line) for line in seen.body.splitlines()]
    [event] = [e for e in events if e["Actor"]["ID"] == f"{place}/evented:1"]
    assert (event["Type"], event["Action"]) == ("image", "push")
    assert event["Actor"]["Attributes"]["name"] == f"{place}/evented"


def _seconds(text: str, more: int = 0) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(text[:19] + "+00:00").timestamp()) + more


def test_over_tls(
    docker: DockerCLI, tls_registry: Registry, reachable: Reachable, image: str
) -> None:
    """On a loopback address no certificate is asked for that somebody vouches for."""
    place = tls_registry.address
    reachable(place)
    docker("tag", image, f"{place}/app:1")
    docker("push", f"{place}/app:1")
    assert tls_registry.tags("app") == ["1"]
    docker("rmi", f"{place}/app:1")
    docker("pull", f"{place}/app:1")


class TestRights:
    def test_a_password(
        self,
        docker: DockerCLI,
        target: Engine,
        password_registry: Registry,
        reachable: Reachable,
        image: str,
    ) -> None:
        """From the client's configuration; a wrong one and none are refused."""
        place = password_registry.address
        reachable(place)
        docker("tag", image, f"{place}/app:1")
        assert "no basic auth credentials" in docker.fails("push", f"{place}/app:1").err
        with _logged_in(docker, place, "wrong"):
            refused = docker.fails("push", f"{place}/app:1")
            assert "unauthorized: authentication required" in refused.err
        with _logged_in(docker, place, PASSWORD):
            docker("push", f"{place}/app:1")
        assert password_registry.tags("app") == ["1"]

    def test_a_token(
        self,
        target: Engine,
        token_registry: Registry,
        reachable: Reachable,
        image: str,
    ) -> None:
        """For pull and push of this repository; one more for what is mounted from another."""
        assert token_registry.tokens is not None
        place, realm = token_registry.address, token_registry.tokens.realm
        reachable(place, realm.split("/")[2])
        for name in ("one", "two"):
            assert (
                target.post(f"/images/{image}/tag", repo=f"{place}/{name}", tag="1").status == 201
            )
        refused = lines(target, f"/images/{place}/one/push", tag="1")
        assert refused[-1]["error"] == "denied: requested access to the resource is denied"
        wrong = {"username": USER, "password": "wrong"}
        refused = lines(target, f"/images/{place}/one/push", wrong, tag="1")
        assert refused[-1]["error"] == "unauthorized: incorrect username or password"
        right = {"username": USER, "password": PASSWORD}
        assert "aux" in lines(target, f"/images/{place}/one/push", right, tag="1")[-1]
        messages = lines(target, f"/images/{place}/two/push", right, tag="1")
        assert sum(m.get("status") == "Mounted from one" for m in messages) == 3
        assert token_registry.tags("two") == ["1"]
        scopes = {scope for r in token_registry.tokens.requests for scope in r.scopes}
        assert "repository:one:pull" in scopes or "repository:one:pull,push" in scopes

    def test_refusals(
        self, target: Engine, registry: Registry, reachable: Reachable, image: str
    ) -> None:
        """A registry's own words reach the client."""
        proxy = FaultyProxy(registry, host="127.0.0.1")
        try:
            reachable(proxy.address)
            repository = f"{proxy.address}/app"
            assert target.post(f"/images/{image}/tag", repo=repository, tag="1").status == 201
            proxy.fault(Answer(500, {}, b"oops"), path="/manifests/", method="PUT", times=None)
            failed = lines(target, f"/images/{repository}/push", tag="1")[-1]
            assert failed["error"] == "received unexpected HTTP status: 500 Internal Server Error"
            assert failed["errorDetail"] == {"message": failed["error"]}
            proxy.heal()
            error = {"code": "DENIED", "message": "the quota is used up"}
            body = json.dumps({"errors": [error]}).encode()
            json_type = {"Content-Type": "application/json"}
            proxy.fault(Answer(403, json_type, body), path="/manifests/", method="PUT", times=None)
            failed = lines(target, f"/images/{repository}/push", tag="1")[-1]
            assert "the quota is used up" in failed["error"]
            assert registry.tags("app") == []
        finally:
            proxy.close()

    def test_nobody_listens(self, target: Engine, image: str) -> None:
        assert target.post(f"/images/{image}/tag", repo="127.0.0.1:1/app", tag="1").status == 201
        failed = lines(target, "/images/127.0.0.1:1/app/push", tag="1")[-1]
        assert failed["error"] == (
            'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
        )


class _logged_in:
    """A password in the client's configuration, for a while."""

    def __init__(self, docker: DockerCLI, place: str, password: str) -> None:
        self._path = os.path.join(docker.env["DOCKER_CONFIG"], "config.json")
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        self._text = json.dumps({"auths": {place: {"auth": auth}}})

    def __enter__(self) -> None:
        with open(self._path, "w") as file:
            file.write(self._text)

    def __exit__(self, *failure: object) -> None:
        os.unlink(self._path)
