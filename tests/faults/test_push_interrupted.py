"""A push that is interrupted: by `kill -9` of the daemon, by its client, by the registry's end.

Afterwards the store is what it was, and the next push sends only what is missing.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines import SampanEngine
from support.faulty_proxy import Answer, CutUpload, FaultyProxy, Header, StallUpload
from support.registries import PASSWORD, USER, Registry
from support.registry_images import Made, layer, make_image
from support.rootfs import image_tar
from support.waiting import wait_for

pytestmark = pytest.mark.root

SMALL, BIG = 400_000, 6_000_000
LAYERS = [layer(SMALL, seed=1), layer(BIG, seed=2)]


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    made = FaultyProxy(registry)
    yield made
    made.close()


@pytest.fixture
def name(own_sampan: SampanEngine, proxy: FaultyProxy) -> str:
    """A repository of the proxy's, whose tag 1 is an image that runs nothing."""
    repository = f"{proxy.address}/team/app"
    loaded = own_sampan.request(
        "POST", "/images/load", raw=image_tar(f"{repository}:1", LAYERS, {})
    )
    assert loaded.status == 200 and b"Loaded image" in loaded.body, loaded
    return repository


def push(engine: SampanEngine, name: str) -> list[dict[str, Any]]:
    answer = engine.request("POST", f"/images/{name}/push", query={"tag": "1"})
    assert answer.status == 200, answer
    return [json.loads(line) for line in answer.body.splitlines()]


def push_in_background(engine: SampanEngine, name: str) -> threading.Thread:
    def work() -> None:
        try:
            push(engine, name)
        except (OSError, ValueError):
            return  # the daemon is killed under it

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def stall_the_big_layer(engine: SampanEngine, name: str, proxy: FaultyProxy) -> threading.Thread:
    """Begin a push that stops in the middle of the big layer, everything else being there."""
    proxy.fault(StallUpload(BIG // 3), method="PATCH", times=None)
    thread = push_in_background(engine, name)
    proxy.wait_received(BIG // 3)
    wait_for(lambda: stored(proxy) == 2, "the other blobs to be there")
    return thread


def stored(proxy: FaultyProxy) -> int:
    """How many blobs were put to an end."""
    return sum(
        r.method == "PUT" and r.status == 201 and "/blobs/" in r.path for r in proxy.requests
    )


def expect_pushed(registry: Registry, messages: list[dict[str, Any]]) -> None:
    result = messages[-1]["aux"]
    manifest = registry.manifest("team/app", "1")
    assert manifest.headers["docker-content-digest"] == result["Digest"]
    for descriptor in [manifest.json["config"], *manifest.json["layers"]]:
        assert len(registry.blob("team/app", descriptor["digest"])) == descriptor["size"]


def expect_only_the_big_layer(proxy: FaultyProxy) -> None:
    assert BIG <= proxy.received("/blobs/") < BIG + SMALL // 2


def test_a_killed_daemon_sends_the_rest(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy, name: str
) -> None:
    thread = stall_the_big_layer(own_sampan, name, proxy)
    own_sampan.kill()
    thread.join()
    proxy.heal()
    assert registry.tags("team/app") == []
    own_sampan.start()
    proxy.reset()
    expect_pushed(registry, push(own_sampan, name))
    expect_only_the_big_layer(proxy)


def test_a_client_that_leaves_ends_it(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy, name: str
) -> None:
    """And the image can be removed then."""
    with own_sampan.connect() as connection:
        proxy.fault(StallUpload(BIG // 3), method="PATCH", times=None)
        connection.start("POST", f"/images/{name}/push", query={"tag": "1"})
        proxy.wait_received(BIG // 3)
        wait_for(lambda: stored(proxy) == 2, "the other blobs to be there")
    proxy.heal()
    proxy.reset()
    expect_pushed(registry, push(own_sampan, name))
    expect_only_the_big_layer(proxy)
    identity = own_sampan.get(f"/images/{name}:1/json").json["Id"]
    before = own_sampan.get("/system/df").json["LayersSize"]
    assert own_sampan.delete(f"/images/{identity}", force=True).status == 200
    assert own_sampan.get("/system/df").json["LayersSize"] < before - BIG


def test_the_registry_is_restarted_under_it(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy, name: str
) -> None:
    """The upload in its middle is begun anew, and the client sees one push."""
    thread = stall_the_big_layer(own_sampan, name, proxy)
    registry.stop()
    proxy.heal()
    registry.start()
    thread.join()
    assert registry.tags("team/app") == ["1"]
    expect_pushed(registry, push(own_sampan, name))


@pytest.mark.parametrize("end", [False, True], ids=["in the middle", "before the answer"])
def test_the_connection_breaks(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy, name: str, end: bool
) -> None:
    proxy.fault(CutUpload(BIG // 2, end=end), method="PATCH", times=2)
    expect_pushed(registry, push(own_sampan, name))


def test_the_registry_is_busy_for_a_moment(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy, name: str
) -> None:
    proxy.fault(Answer(503, {}, b"busy"), method="POST", times=1)
    proxy.fault(Answer(429, {"Retry-After": "1"}), method="PUT", path="/manifests/", times=1)
    expect_pushed(registry, push(own_sampan, name))


def test_a_registry_that_does_not_know_oci(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy, name: str
) -> None:
    """An image that was loaded is pushed as dockerd would, in Docker's media types."""
    error = {"code": "MANIFEST_INVALID", "message": "manifest invalid"}
    body = json.dumps({"errors": [error]}).encode()
    refusal = Answer(400, {"Content-Type": "application/json"}, body)
    proxy.fault(refusal, method="PUT", path="/manifests/")
    messages = push(own_sampan, name)
    expect_pushed(registry, messages)
    kind = registry.manifest("team/app", "1").headers["content-type"]
    assert kind == "application/vnd.docker.distribution.manifest.v2+json"
    proxy.fault(refusal, method="PUT", path="/manifests/", times=None)
    own_sampan.post(f"/images/{name}:1/tag", repo=name, tag="2")
    failed = own_sampan.request("POST", f"/images/{name}/push", query={"tag": "2"})
    assert b"manifest invalid: manifest invalid" in failed.body


def test_a_registry_that_confuses_digests(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy, name: str
) -> None:
    """One that stored something else than it was sent is not believed."""
    wrong = {"Docker-Content-Digest": f"sha256:{'a' * 64}"}
    proxy.fault(Header(wrong), method="PUT", path="/manifests/", times=None)
    messages = push(own_sampan, name)
    assert "sha256:aaaa" in messages[-1].get("error", ""), messages[-1]
    assert own_sampan.get(f"/images/{name}:1/json").json["RepoDigests"] == []


def test_credentials_do_not_go_elsewhere(
    own_sampan: SampanEngine,
    password_registry: Registry,
) -> None:
    """A registry that has blobs sent to another host (a storage service) gives that one no password."""
    front, elsewhere = (FaultyProxy(password_registry, host=f"127.0.0.{n}") for n in (2, 3))
    try:
        made: Made = make_image([layer(BIG, seed=3)])
        repository = f"{front.address}/app"
        archive = image_tar(f"{repository}:1", made.plain, {})
        assert own_sampan.request("POST", "/images/load", raw=archive).status == 200
        location = {"Location": f"{elsewhere.url}/v2/app/blobs/uploads/storage"}
        front.fault(Header(location), method="POST", path="/uploads/", times=None)
        elsewhere.fault(
            Answer(202, {"Location": "/v2/app/blobs/uploads/storage"}), method="PATCH", times=None
        )
        elsewhere.fault(Answer(201), method="PUT", times=None)
        document = {"username": USER, "password": PASSWORD}
        header = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
        answer = own_sampan.request(
            "POST",
            f"/images/{repository}/push",
            query={"tag": "1"},
            headers={"X-Registry-Auth": header},
        )
        assert answer.status == 200
        assert elsewhere.received() > BIG
        assert not any(r.authorization for r in elsewhere.requests)
        assert any(r.authorization for r in front.requests)
        assert password_registry.tags("app") == []  # it never got the blobs
    finally:
        front.close()
        elsewhere.close()
