"""Images for several platforms: what `images --tree`, inspect and history tell of them after a pull."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

from support.command import DockerCLI, run
from support.engines import Engine
from support.registries import Registry
from support.registry_images import Made, layer, put_image, put_index

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
PLATFORMS = ("linux/amd64", "linux/arm64/v8", "linux/s390x")


@pytest.fixture
def place(
    target: Engine, registry: Registry, reachable: Callable[..., None], only_sampan: None
) -> Iterator[str]:
    """A repository's name; dockerd 20.10 tells of one platform only."""
    reachable(registry.address)
    name = f"{registry.address}/team/many"
    yield name
    for image in target.get("/images/json", all=True).json:
        if any(registry.address in text for text in image["RepoDigests"] or image["RepoTags"]):
            target.delete(f"/images/{image['Id']}", force=True)


def put(registry: Registry) -> dict[str, Made]:
    made = {}
    for number, platform in enumerate(PLATFORMS):
        os_name, architecture = platform.split("/")[:2]
        made[platform] = put_image(
            registry, "team/many", "", [layer(1000, seed=number)], platform=(os_name, architecture)
        )
    put_index(registry, "team/many", "v1", made)
    return made


def test_tree(docker: DockerCLI, target: Engine, registry: Registry, place: str) -> None:
    made = put(registry)
    docker("pull", "-q", f"{place}:v1")
    (image,) = [
        i
        for i in target.get("/v1.50/images/json", manifests="1").json
        if f"{place}:v1" in i["RepoTags"]
    ]
    shown = {m["ID"]: (m["Available"], m["Kind"]) for m in image["Manifests"]}
    assert shown == {m.digest: (p == PLATFORMS[0], "image") for p, m in made.items()}
    assert image["Id"] == made[PLATFORMS[0]].id
    env = {**os.environ, "SAMPAN_HOST": f"unix://{target.socket}"}
    lines = run([SAMPAN, "images", "--tree", f"{place}:v1"], env=env).out.splitlines()
    assert [line.split()[:2] for line in lines[-4:]] == [
        [f"{place}:v1", image["Id"][7:19]],
        ["├─", "linux/amd64"],
        ["├─", "linux/arm64/v8"],
        ["└─", "linux/s390x"],
    ]
    assert lines[-1].split()[3:] == ["0B", "0B"], "it is not on this machine"


def test_another_platform(
    docker: DockerCLI, target: Engine, registry: Registry, place: str
) -> None:
    made = put(registry)
    docker("pull", "-q", f"{place}:v1")
    wanted = {"platform": '{"os":"linux","architecture":"arm64"}'}
    answer = target.get(f"/v1.50/images/{place}:v1/json", **wanted)
    assert answer.status == 404
    assert "does not provide the specified platform (linux/arm64)" in answer.body.decode()
    docker("pull", "-q", "--platform", "linux/arm64", f"{place}:v1")
    assert (
        target.get(f"/v1.50/images/{place}:v1/json", **wanted).json["Id"] == made[PLATFORMS[1]].id
    )
    (line,) = target.get(f"/v1.50/images/{place}:v1/history", **wanted).json
    assert (line["CreatedBy"], line["Id"]) == ("layer 0", made[PLATFORMS[1]].id)
    document = target.get(f"/v1.50/images/{place}:v1/json", manifests="1").json
    assert [m["Available"] for m in document["Manifests"]] == [True, True, False]
    both = {"manifests": "1", **wanted}
    assert target.get(f"/v1.50/images/{place}:v1/json", **both).status == 400
