"""Pulling through real clients from a real registry."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import Engine
from support.faulty_proxy import Answer, FaultyProxy
from support.registries import Registry
from support.registry_images import Made, layer, put_image, put_index
from support.rootfs import rootfs_tar

DOCKERS = {"docker": True}
"""Docker's media types, as everything that was pushed by docker 20.10 has them."""


@pytest.fixture
def place(target: Engine, registry: Registry, reachable: Callable[..., None]) -> Iterator[str]:
    """A repository's name; its images are gone from the engine afterwards."""
    reachable(registry.address)
    name = f"{registry.address}/team/app"
    yield name
    target.remove_containers()
    for image in target.get("/images/json", all=True).json:
        names = [*(image["RepoTags"] or []), *(image["RepoDigests"] or [])]
        if any(registry.address in text for text in names):
            target.delete(f"/images/{image['Id']}", force=True)


def put(registry: Registry, tag: str = "v1", **options: Any) -> Made:
    layers = [layer(200_000, seed=secrets.randbelow(1 << 30)), rootfs_tar(), layer(10, seed=2)]
    return put_image(registry, "team/app", tag, layers, **DOCKERS, **options)


def labels(made: Made) -> list[str]:
    return [blob.digest[7:19] for blob in made.layers]


def messages(target: Engine, **query: str) -> list[dict[str, Any]]:
    answer = target.request("POST", "/v1.41/images/create", query=query)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    return [json.loads(line) for line in answer.body.splitlines()]


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [f"{m['id']}: {m['status']}" if m.get("id") else m["status"] for m in found]


# -- docker pull --------------------------------------------------------------------------------


def test_pull_and_run(docker: DockerCLI, target: Engine, registry: Registry, place: str) -> None:
    made = put(registry)
    out = docker("pull", f"{place}:v1").out.splitlines()
    assert out[0] == "v1: Pulling from team/app"
    assert out[1:4] == [f"{label}: Pulling fs layer" for label in labels(made)]
    for label in labels(made):
        assert f"{label}: Pull complete" in out
        assert f"{label}: Download complete" in out
    assert out[-3:] == [
        f"Digest: {made.digest}",
        f"Status: Downloaded newer image for {place}:v1",
        f"{place}:v1",
    ]
    assert docker("run", "--rm", f"{place}:v1", "echo", "it runs").line == "it runs"
    inspected = target.get(f"/images/{place}:v1/json").json
    assert inspected["Id"] == made.id
    assert inspected["RepoTags"] == [f"{place}:v1"]
    assert inspected["RepoDigests"] == [f"{place}@{made.digest}"]


def test_pull_again(docker: DockerCLI, registry: Registry, place: str) -> None:
    made = put(registry)
    docker("pull", "-q", f"{place}:v1")
    assert docker("pull", f"{place}:v1").out.splitlines() == [
        "v1: Pulling from team/app",
        f"Digest: {made.digest}",
        f"Status: Image is up to date for {place}:v1",
        f"{place}:v1",
    ]
    assert docker("pull", "-q", f"{place}:v1").out == f"{place}:v1\n"


def test_pull_a_newer_image(
    docker: DockerCLI, target: Engine, registry: Registry, place: str
) -> None:
    old = put(registry)
    docker("pull", "-q", f"{place}:v1")
    layers = [old.plain[0], layer(70, seed=5)]
    new = put_image(registry, "team/app", "v1", layers, **DOCKERS)
    out = docker("pull", f"{place}:v1").out
    assert f"{labels(new)[0]}: Already exists" in out
    assert f"Status: Downloaded newer image for {place}:v1" in out
    left = target.get(f"/images/{old.id}/json").json
    assert (left["RepoTags"], left["RepoDigests"]) == ([], [f"{place}@{old.digest}"])


def test_pull_by_digest(docker: DockerCLI, target: Engine, registry: Registry, place: str) -> None:
    made = put(registry)
    name = f"{place}@{made.digest}"
    out = docker("pull", name).out.splitlines()
    assert out[0] == f"{name}: Pulling from team/app"
    assert out[-2:] == [f"Status: Downloaded newer image for {name}", name]
    assert docker("run", "--rm", name, "echo", "it runs").line == "it runs"
    inspected = target.get(f"/images/{name}/json").json
    assert (inspected["RepoTags"], inspected["RepoDigests"]) == ([], [name])


def test_pull_all_tags(docker: DockerCLI, registry: Registry, place: str) -> None:
    first, second = put(registry, "v1"), put(registry, "v2")
    out = docker("pull", "-a", place).out.splitlines()
    assert "v1: Pulling from team/app" in out and "v2: Pulling from team/app" in out
    assert f"Digest: {first.digest}" in out and f"Digest: {second.digest}" in out
    assert out[-2:] == [f"Status: Downloaded newer image for {place}", place]
    assert docker("images", "-q", place).out.count("\n") == 2


def test_the_default_tag(docker: DockerCLI, registry: Registry, place: str) -> None:
    put(registry, "latest")
    out = docker("pull", place).out.splitlines()
    assert out[:2] == ["Using default tag: latest", "latest: Pulling from team/app"]
    assert out[-1] == f"{place}:latest"


def test_platforms(docker: DockerCLI, target: Engine, registry: Registry, place: str) -> None:
    amd = put_image(registry, "team/app", "", [layer(10)], platform=("linux", "amd64"), **DOCKERS)
    arm = put_image(registry, "team/app", "", [layer(20)], platform=("linux", "arm64"), **DOCKERS)
    images = {"linux/amd64": amd, "linux/arm64/v8": arm}
    index = put_index(registry, "team/app", "multi", images, **DOCKERS)
    out = docker("pull", f"{place}:multi").out
    assert f"Digest: {index.digest}" in out
    inspected = target.get(f"/images/{place}:multi/json").json
    assert (inspected["Id"], inspected["RepoDigests"]) == (amd.id, [f"{place}@{index.digest}"])
    docker("pull", "-q", "--platform", "linux/arm64", f"{place}:multi")
    assert target.get(f"/images/{place}:multi/json").json["Architecture"] == "arm64"
    failed = docker.fails("pull", "--platform", "linux/s390x", f"{place}:multi")
    assert "no matching manifest for linux/s390x in the manifest list entries" in failed.err


def test_refusals(docker: DockerCLI, registry: Registry, place: str) -> None:
    put(registry)
    failed = docker.fails("pull", f"{place}:nope")
    assert f"manifest for {place}:nope not found: manifest unknown: manifest unknown" in failed.err
    failed = docker.fails("pull", "-a", f"{registry.address}/team/nope")
    assert f"repository {registry.address}/team/nope not found: name unknown" in failed.err


def test_run_fetches_what_is_missing(docker: DockerCLI, registry: Registry, place: str) -> None:
    made = put(registry)
    done = docker("run", "--rm", f"{place}:v1", "echo", "it runs")
    assert done.line == "it runs"
    assert f"Unable to find image '{place}:v1' locally" in done.err
    assert f"Digest: {made.digest}" in done.err
    again = docker("run", "--rm", "--pull", "always", f"{place}:v1", "echo", "it runs")
    assert f"Status: Image is up to date for {place}:v1" in again.err
    failed = docker.fails("run", "--rm", "--pull", "never", f"{place}:v2", "true")
    assert failed.code == 125 and "No such image" in failed.err


def test_create_for_another_platform(target: Engine, registry: Registry, place: str) -> None:
    put(registry)
    messages(target, fromImage=place, tag="v1")
    body = {"Image": f"{place}:v1"}
    refused = target.post("/v1.41/containers/create", body, platform="linux/arm64")
    assert refused.status == 404
    assert f"image with reference {place}:v1 was found but does not" in refused.message
    assert target.post("/v1.41/containers/create", body, platform="foo").status == 400
    assert target.post("/v1.41/containers/create", body, platform="linux/amd64").status == 201


# -- the stream ---------------------------------------------------------------------------------


def test_the_stream(target: Engine, registry: Registry, place: str) -> None:
    made = put(registry)
    found = messages(target, fromImage=place, tag="v1")
    assert texts(found)[:4] == [
        "v1: Pulling from team/app",
        *(f"{label}: Pulling fs layer" for label in labels(made)),
    ]
    assert found[0] == {"status": "Pulling from team/app", "id": "v1"}
    # dockerd leaves out what is overtaken before it was written, `Verifying Checksum` at times.
    steps = ("Pulling fs layer", "Download complete", "Pull complete")
    for label, blob in zip(labels(made), made.layers, strict=True):
        mine = [message for message in found if message.get("id") == label]
        names = [message["status"] for message in mine]
        assert [name for name in names if name in steps] == list(steps)
        for message in mine:
            if message["status"] in steps:
                assert message["progressDetail"] == {}
            elif message["status"] in ("Downloading", "Extracting"):
                assert message["progressDetail"]["total"] == len(blob.data)
                assert message["progress"].startswith("[")
    assert found[-2:] == [
        {"status": f"Digest: {made.digest}"},
        {"status": f"Status: Downloaded newer image for {place}:v1"},
    ]


def test_a_tag_may_be_in_the_name(target: Engine, registry: Registry, place: str) -> None:
    made = put(registry)
    assert texts(messages(target, fromImage=f"{place}:v1"))[0] == "v1: Pulling from team/app"
    found = texts(messages(target, fromImage=place, tag=made.digest))
    assert found[-1] == f"Status: Image is up to date for {place}@{made.digest}"
    found = texts(messages(target, fromImage=f"{place}:other", tag="v1"))
    assert found[-1] == f"Status: Image is up to date for {place}:v1"


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"fromImage": "team/APP", "tag": "x"}, 400, "repository name must be lowercase"),
        ({"fromImage": "a", "tag": "b/c"}, 400, "invalid tag format"),
        ({"fromImage": "a", "tag": "sha256:aaaa"}, 400, "invalid tag format"),
        ({"fromImage": "a", "platform": "a/b/c/d"}, 400, "cannot parse platform specifier"),
        ({"fromImage": "a", "platform": "foo"}, 400, "unknown operating system or architecture"),
        ({"fromImage": "a", "platform": "linux/"}, 400, "is an invalid component of"),
    ],
)
def test_bad_requests(target: Engine, query: dict[str, str], status: int, words: str) -> None:
    answer = target.post("/images/create", **query)
    assert answer.status == status
    assert words in answer.message


def test_an_unknown_tag_is_a_404(target: Engine, registry: Registry, place: str) -> None:
    put(registry)
    answer = target.post("/images/create", fromImage=place, tag="nope")
    assert answer.status == 404
    assert answer.message == (
        f"manifest for {place}:nope not found: manifest unknown: manifest unknown"
    )


def test_a_failure_in_the_middle(
    target: Engine, registry: Registry, reachable: Callable[..., None]
) -> None:
    made = put(registry)
    proxy = FaultyProxy(registry)
    try:
        reachable(proxy.address)
        proxy.fault(Answer(404), path=made.layers[1].digest, times=None)
        found = messages(target, fromImage=f"{proxy.address}/team/app", tag="v1")
        assert found[-1]["error"] == found[-1]["errorDetail"]["message"]
        assert target.get(f"/images/{made.id}/json").status == 404
    finally:
        proxy.close()


def test_another_platform_is_warned_of(target: Engine, registry: Registry, place: str) -> None:
    """(dockerd 20.10 looks at the tag `latest`, whatever tag was pulled.)"""
    put(registry, "latest")
    found = messages(target, fromImage=place, tag="latest", platform="linux/arm64")
    assert texts(found)[-1] == (
        f"WARNING: image with reference {place} was found but does not match the specified "
        "platform: wanted linux/arm64, actual: linux/amd64"
    )


def test_its_event(target: Engine, registry: Registry, place: str) -> None:
    put(registry, config={"Labels": {"a": "b"}})
    messages(target, fromImage=place, tag="v1")
    wanted = json.dumps({"event": ["pull"], "image": [f"{place}:v1"]})
    answer = target.get("/events", since="1", until=str(int(time.time()) + 1), filters=wanted)
    [event] = [json.loads(line) for line in answer.body.splitlines()]
    assert (event["Type"], event["Action"]) == ("image", "pull")
    assert event["Actor"] == {"ID": f"{place}:v1", "Attributes": {"a": "b", "name": place}}


# -- docker-py ----------------------------------------------------------------------------------


def test_docker_py(target: Engine, registry: Registry, place: str) -> None:
    made = put(registry)
    client = target.client()
    image = client.images.pull(place, tag="v1")
    assert image.id == made.id
    assert client.containers.run(image, "echo it runs", remove=True) == b"it runs\n"
    put(registry, "v2")
    assert len(client.images.pull(place, all_tags=True)) == 2
    data = client.images.get_registry_data(f"{place}:v1")
    assert data.id == made.digest
