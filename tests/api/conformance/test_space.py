"""`system df` and `image prune`: through both docker command lines, docker-py and the API's versions."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest

from support.command import DockerCLI
from support.engines import Engine
from support.rootfs import image_tar, rootfs_tar
from support.tars import archive, file
from support.waiting import wait_for


@pytest.fixture
def mark(target: Engine) -> Iterator[str]:
    """A name that the test's images carry as repository and label; they are gone afterwards."""
    name = "s" + secrets.token_hex(4)
    yield name
    target.remove_containers()
    for image in target.get("/images/json", all=True, filters={"label": [name]}).json:
        target.delete(f"/images/{image['Id']}", force=True)


def make_image(target: Engine, mark: str, tag: str, size: int = 300_000) -> str:
    layers = [rootfs_tar(), archive([file(f"{tag}.bin", tag[:1].encode() * size)])]
    data = image_tar(f"{mark}:{tag}", layers, {"Labels": {mark: tag}, "Cmd": ["sh"]})
    answer = target.request("POST", "/images/load", raw=data)
    assert answer.status == 200 and b"errorDetail" not in answer.body
    return str(target.get(f"/images/{mark}:{tag}/json").json["Id"])


def create(target: Engine, image: str, script: str = "true") -> str:
    body = {"Image": image, "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}}
    return str(target.post("/containers/create", body).json["Id"])


def usage(target: Engine, version: str = "", **query: object) -> dict[str, Any]:
    path = f"{version and '/v'}{version}/system/df"
    found: dict[str, Any] = target.get(path, **query).json
    return found


def image_of(report: dict[str, Any], identity: str) -> dict[str, Any]:
    [found] = [image for image in report["Images"] if image["Id"] == identity]
    return dict(found)


# -- system df -------------------------------------------------------------------------------------


def test_images_and_what_they_share(target: Engine, mark: str) -> None:
    one, two = make_image(target, mark, "one"), make_image(target, mark, "two")
    report = usage(target, "1.41")
    for identity in (one, two):
        image = image_of(report, identity)
        assert image["Size"] - image["SharedSize"] >= 300_000
        assert image["SharedSize"] >= 1_900_000
        assert image["Containers"] == 0
        assert image["VirtualSize"] == image["Size"]
    assert report["LayersSize"] >= 1_900_000 + 600_000
    before = report["LayersSize"]
    target.delete(f"/images/{mark}:two")
    assert before - usage(target, "1.41")["LayersSize"] >= 300_000


def test_containers_and_what_they_wrote(target: Engine, mark: str) -> None:
    image = make_image(target, mark, "one")
    container = create(target, image, "head -c 123456 /dev/zero > /written")
    target.post(f"/containers/{container}/start")
    target.post(f"/containers/{container}/wait")
    report = usage(target, "1.41")
    [entry] = [found for found in report["Containers"] if found["Id"] == container]
    assert entry["SizeRw"] == 123_456
    assert entry["SizeRootFs"] == 123_456 + target.get(f"/images/{image}/json").json["Size"]
    assert (entry["State"], entry["Image"]) == ("exited", image)
    assert image_of(report, image)["Containers"] == 1


def test_fields_of_a_version_before_sums(target: Engine) -> None:
    report = usage(target, "1.41")
    assert set(report) - {"PartialDownloads"} == {
        "LayersSize", "Images", "Containers", "Volumes", "BuildCache", "BuilderSize",
    }  # fmt: skip
    assert report["Volumes"] == [] and not report["BuildCache"]


def test_docker_shows_it(docker: DockerCLI, target: Engine, mark: str) -> None:
    make_image(target, mark, "one")
    lines = docker("system", "df").out.splitlines()
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [line.split()[0] for line in lines[1:]] == ["Images", "Containers", "Local", "Build"]
    rows = [
        json.loads(line)
        for line in docker("system", "df", "--format", "{{json .}}").out.splitlines()
    ]
    assert rows[0]["TotalCount"] == str(len(target.get("/images/json").json))
    assert rows[0]["Reclaimable"].endswith("%)")
    details = docker("system", "df", "-v").out
    assert "Images space usage:" in details and mark in details


def test_docker_py_reads_it(target: Engine, mark: str) -> None:
    identity = make_image(target, mark, "one")
    client = docker.DockerClient(base_url=f"unix://{target.socket}", version="1.41")
    report = client.df()
    client.close()
    assert image_of(report, identity)["RepoTags"] == [f"{mark}:one"]


# -- image prune -----------------------------------------------------------------------------------


def test_prune_takes_the_nameless(docker: DockerCLI, target: Engine, mark: str) -> None:
    one, two = make_image(target, mark, "one"), make_image(target, mark, "two")
    docker("tag", one, f"{mark}:two")
    out = docker("image", "prune", "-f", "--filter", f"label={mark}").out
    assert f"deleted: {two}" in out
    assert "Total reclaimed space: 0B" not in out
    assert docker("image", "prune", "-f", "--filter", f"label={mark}").out == (
        "Total reclaimed space: 0B\n"
    )
    assert target.get(f"/images/{one}/json").status == 200


def test_prune_all_leaves_what_containers_use(docker: DockerCLI, target: Engine, mark: str) -> None:
    used, unused = make_image(target, mark, "one"), make_image(target, mark, "two")
    create(target, used)
    out = docker("image", "prune", "-af", "--filter", f"label={mark}").out
    assert f"untagged: {mark}:two\ndeleted: {unused}" in out
    assert used not in out
    assert target.get(f"/images/{mark}:one/json").status == 200


def test_prune_by_labels_and_time(target: Engine, mark: str) -> None:
    identity = make_image(target, mark, "one")

    def prune(**filters: list[str]) -> dict[str, Any]:
        filters = {"dangling": ["false"], "label": [mark], **filters}
        found: dict[str, Any] = target.post("/images/prune", filters=filters).json
        return found

    nothing = {"ImagesDeleted": None, "SpaceReclaimed": 0}
    assert prune(until=["2020-01-01T00:00:00"]) == nothing
    assert prune(label=[f"{mark}=two"]) == nothing
    assert prune(**{"label!": [f"{mark}=one"]}) == nothing
    done = prune(label=[f"{mark}=one"], until=["24h"])
    assert {"Deleted": identity} in done["ImagesDeleted"]
    assert done["ImagesDeleted"][0] == {"Untagged": f"{mark}:one"}
    assert done["SpaceReclaimed"] >= 300_000


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"foo": ["x"]}, "Invalid filter 'foo'"),
        ({"dangling": ["maybe"]}, "Invalid filter 'dangling=[maybe]'"),
        ({"until": ["1h", "2h"]}, "more than one until filter specified"),
        ({"until": ["x"]}, 'failed to parse value as time or duration: "x"'),
    ],
)
def test_prune_refuses(target: Engine, filters: dict[str, list[str]], message: str) -> None:
    answer = target.post("/images/prune", filters=filters)
    assert answer.status in (400, 500)
    assert answer.json["message"] == message


def test_events_of_prune(docker: DockerCLI, target: Engine, mark: str) -> None:
    identity = make_image(target, mark, "one")
    docker("image", "prune", "-af", "--filter", f"label={mark}")

    def events() -> list[str]:
        form = ("--filter", "type=image", "--format", "{{.Action}} {{.Actor.ID}}")
        lines = docker("events", "--since", "5m", "--until", "0s", *form).out.splitlines()
        return [line.strip() for line in lines if line.endswith((identity, "prune "))]

    wait_for(lambda: f"delete {identity}" in events() and events()[-1] == "prune", "the events")
    assert events()[-3:] == [f"untag {identity}", f"delete {identity}", "prune"]


def test_no_build_cache(docker: DockerCLI, target: Engine) -> None:
    answer = target.post("/build/prune")
    assert answer.json["SpaceReclaimed"] == 0 and not answer.json["CachesDeleted"]


# -- what dockerd 20.10 does not have --------------------------------------------------------------


@pytest.mark.usefixtures("only_sampan")
def test_types(target: Engine) -> None:
    report = usage(target, "1.51", type="container")
    assert report["Images"] is None and report["LayersSize"] == 0
    assert isinstance(report["Containers"], list)
    assert usage(target, "1.51", type=["image", "volume"])["Containers"] is None
    assert usage(target, "1.41", type="container")["Images"] is not None
    answer = target.get("/v1.51/system/df", type="foo")
    assert (answer.status, answer.json["message"]) == (400, "unknown object type: foo")


@pytest.mark.usefixtures("only_sampan")
def test_sums(target: Engine, mark: str) -> None:
    image = make_image(target, mark, "one")
    create(target, image)
    report = usage(target, "1.55")
    assert "Images" not in report and "Items" not in report["ImageUsage"]
    verbose = usage(target, "1.55", verbose=1)
    items = verbose["ImageUsage"]["Items"]
    assert image in [item["Id"] for item in items]
    assert verbose["ImageUsage"]["TotalCount"] == len(items)
    assert verbose["ImageUsage"]["ActiveCount"] == sum(1 for i in items if i["Containers"])
    assert 0 <= verbose["ImageUsage"]["Reclaimable"] < verbose["ImageUsage"]["TotalSize"]
    assert verbose["ContainerUsage"]["TotalCount"] == 1
    assert verbose["VolumeUsage"]["TotalSize"] == 0
    both = usage(target, "1.52")
    assert "Images" in both and "ImageUsage" in both
    assert "Images" not in usage(target, "1.52", verbose=1)
    assert "ImageUsage" not in usage(target, "1.51")
    assert "BuilderSize" not in usage(target, "1.42")


@pytest.mark.usefixtures("only_sampan")
def test_what_is_reclaimable_comes_back(target: Engine, mark: str) -> None:
    make_image(target, mark, "one")
    create(target, make_image(target, mark, "two"))
    before = usage(target, "1.55")["ImageUsage"]
    done = target.post("/images/prune", filters={"dangling": ["false"], "label": [mark]}).json
    after = usage(target, "1.55")["ImageUsage"]
    assert before["TotalSize"] - after["TotalSize"] == done["SpaceReclaimed"] >= 300_000
    assert before["Reclaimable"] - after["Reclaimable"] == done["SpaceReclaimed"]
