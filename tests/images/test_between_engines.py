"""Images between dockerd 20.10 and us over one registry: each runs what the other pushed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from support.command import docker_clis
from support.engines import DockerEngine, Engine, SampanEngine
from support.forwarding import visible_to
from support.registries import Registry
from support.rootfs import image_tar, rootfs_tar
from support.tars import archive, directory, file

pytestmark = [pytest.mark.root, pytest.mark.docker_cli]

LAYERS = [
    rootfs_tar(),
    archive([directory("etc"), file("etc/one", b"1"), file("etc/two", b"2")]),
    archive([directory("etc"), file("etc/.wh.one", b""), file("etc/two", b"two")]),
]


@pytest.fixture
def place(dockerd: DockerEngine, sampan: SampanEngine, registry: Registry) -> Iterator[str]:
    """A repository that both reach; its images are gone afterwards."""
    assert dockerd.process is not None
    name = f"{registry.address}/{secrets.token_hex(4)}"
    with visible_to(dockerd.process.pid, registry.address):
        yield name
        for engine in (dockerd, sampan):
            for image in engine.get("/images/json", filters={"reference": [name]}).json:
                engine.delete(f"/images/{image['Id']}", force=True)


def docker(engine: Engine, *words: str) -> str:
    return engine.cli(next(iter(docker_clis().values())))(*words).out


def load(engine: Engine, name: str, salt: bytes) -> str:
    """Load the image with a layer more that no registry has seen; its ID."""
    layers = [*LAYERS, archive([file("salt", salt)])]
    config = {"Cmd": ["cat", "/etc/two"], "Env": ["PATH=/bin"]}
    answer = engine.request("POST", "/images/load", raw=image_tar(name, layers, config))
    assert answer.status == 200, answer
    return str(engine.get(f"/images/{name}/json").json["Id"])


@pytest.mark.parametrize("ours_first", [True, False], ids=["from us", "from dockerd"])
def test_the_other_runs_it_and_pushes_it_on(
    dockerd: DockerEngine, sampan: SampanEngine, registry: Registry, place: str, ours_first: bool
) -> None:
    """With the same ID; a push of what was pulled sends no layer."""
    first, second = (sampan, dockerd) if ours_first else (dockerd, sampan)
    identity = load(first, f"{place}:1", os.urandom(20))
    pushed = docker(first, "push", f"{place}:1")
    digest = pushed.rpartition("digest: ")[2].split()[0]
    assert f"Digest: {digest}" in docker(second, "pull", f"{place}:1")
    assert second.get(f"/images/{place}:1/json").json["Id"] == identity
    assert second.get(f"/images/{place}:1/json").json["RepoDigests"] == [f"{place}@{digest}"]
    assert docker(second, "run", "--rm", "--network", "none", f"{place}:1") == "two"
    second.post(f"/images/{place}:1/tag", repo=place, tag="2")
    again = docker(second, "push", f"{place}:2")
    assert again.count(": Layer already exists") == len(LAYERS) + 1
    repository = place.partition("/")[2]
    assert registry.manifest(repository, "2").json["config"]["digest"] == identity
    if not ours_first:  # byte for byte, where dockerd writes a manifest of its own
        assert f"digest: {digest}" in again


def test_no_layer_of_a_common_base_is_sent_twice(
    dockerd: DockerEngine, sampan: SampanEngine, registry: Registry, place: str
) -> None:
    """What dockerd pushed and we pulled is the base of what we push."""
    load(dockerd, f"{place}:base", b"base")
    docker(dockerd, "push", f"{place}:base")
    docker(sampan, "pull", f"{place}:base")
    name = f"made{secrets.token_hex(4)}"
    docker(
        sampan,
        "run",
        "--name",
        name,
        "--network",
        "none",
        f"{place}:base",
        "sh",
        "-c",
        "echo x > /new",
    )
    try:
        docker(sampan, "commit", name, f"{place}:more")
    finally:
        docker(sampan, "rm", name)
    pushed = docker(sampan, "push", f"{place}:more")
    assert pushed.count(": Layer already exists") == len(LAYERS) + 1
    assert pushed.count(": Pushed") == 1
    docker(dockerd, "pull", f"{place}:more")
    assert (
        docker(dockerd, "run", "--rm", "--network", "none", f"{place}:more", "cat", "/new") == "x\n"
    )
