"""Finding, tagging, listing and removing, with dockerd's rules and texts."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.images.image import Image
from sampan.images.removal import is_single_reference
from sampan.oci.digest import Digest
from sampan.oci.reference import parse_reference
from sampan.snapshots.overlay import HOST
from support.images import ImageWorld, pieces
from support.tars import archive, file, reader

pytestmark = pytest.mark.root

CONTAINER = "c" * 64


async def add(world: ImageWorld, name: str | None, content: str = "", **options: Any) -> Image:
    data = archive([file("f", (content or str(name)).encode())])
    return await world.images.import_(pieces(data), reference=name, **options)


def listed(world: ImageWorld, **filters: list[str]) -> list[list[str]]:
    return [item["RepoTags"] for item in world.images.summaries(all=False, filters=filters)]


# -- Resolving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch", "No such image: nosuch:latest"),
        ("nosuch:1", "No such image: nosuch:1"),
        ("docker.io/library/nosuch", "No such image: nosuch:latest"),
        ("0" * 64, f"No such image: sha256:{'0' * 64}"),
        ("sha256:" + "0" * 64, f"No such image: sha256:{'0' * 64}"),
        ("nosuch@sha256:" + "0" * 64, f"No such image: nosuch@sha256:{'0' * 64}"),
        ("abc", "No such image: abc:latest"),
    ],
)
def test_unknown(world: ImageWorld, name: str, message: str) -> None:
    with pytest.raises(NotFound) as caught:
        world.images.resolve(name)
    assert caught.value.message == message


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "../../etc", "a:b:c", "\0"])
def test_no_reference_at_all(world: ImageWorld, name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid reference format"):
        world.images.resolve(name)


async def test_a_name_wins_over_an_id_prefix(world: ImageWorld) -> None:
    one = await add(world, "one")
    two = await add(world, one.id[7:15], "two")
    assert world.images.resolve(one.id[7:15]) is two
    assert world.images.resolve("sha256:" + one.id[7:15]) is one


def test_host_is_resolved_and_not_listed(world: ImageWorld) -> None:
    host = world.images.resolve("host")
    assert host is world.images.resolve("host:latest") is world.images.resolve(host.id)
    assert host.parent == HOST and host.config.cmd in (["bash"], ["sh"])
    assert host.inspect()["RepoTags"] == ["host:latest"]
    assert world.images.list(all=True, filters={}) == []
    json.dumps(host.inspect())


def test_host_is_reserved(world: ImageWorld) -> None:
    for call in (
        lambda: world.images.tag("host", "mine"),
        lambda: world.images.remove("host"),
        lambda: world.images.save(["host"]),
    ):
        with pytest.raises(InvalidArgument, match="host image"):
            call()


# -- Tagging -----------------------------------------------------------------------------------------


async def test_tag(world: ImageWorld) -> None:
    image = await add(world, "a:1")
    world.images.tag("a:1", "b/c")
    world.images.tag(image.id, "a:1")
    assert image.repo_tags == ["b/c:latest", "a:1"], "sorted by their whole names, as Docker does"
    assert image.inspect()["Metadata"]["LastTagTime"].startswith("20")
    assert ("tag", image.id, {"name": "b/c:latest"}) in world.events
    world.reopen()
    assert world.tags() == ["a:1", "b/c:latest"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("X:y", "repository name must be lowercase"),
        ("x:y:z", "invalid reference format"),
        ("x@sha256:" + "0" * 64, "refusing to create a tag with a digest reference"),
        ("host", "reserved"),
        ("docker.io/library/host:2", "reserved"),
    ],
)
async def test_bad_targets(world: ImageWorld, wanted: str, message: str) -> None:
    await add(world, "a:1")
    with pytest.raises(InvalidArgument, match=message):
        world.images.tag("a:1", wanted)


# -- Listing -----------------------------------------------------------------------------------------


async def test_filters(world: ImageWorld) -> None:
    await add(world, "one:1", changes=["LABEL a=b c="])
    await add(world, "reg.io/x/two:2", changes=["LABEL a=z"])
    world.images.tag("one:1", "one:extra")
    nameless = await add(world, None, "three")
    assert listed(world) == [[], ["reg.io/x/two:2"], ["one:1", "one:extra"]]
    assert listed(world, dangling=["true"]) == [[]]
    assert listed(world, dangling=["0"]) == [["reg.io/x/two:2"], ["one:1", "one:extra"]]
    assert listed(world, label=["a=b"]) == [["one:1", "one:extra"]]
    assert listed(world, label=["a", "c"]) == [["one:1", "one:extra"]]
    assert listed(world, label=["c=x"]) == []
    assert listed(world, reference=["one"]) == [["one:1", "one:extra"]]
    assert listed(world, reference=["*:1"]) == [["one:1"]]
    assert listed(world, reference=["reg.io/*/two"]) == [["reg.io/x/two:2"]]
    assert listed(world, reference=["*/two"]) == []
    assert listed(world, reference=["o[mn]e:?"]) == [["one:1"]]
    assert listed(world, before=[nameless.id]) == [["reg.io/x/two:2"], ["one:1", "one:extra"]]
    assert listed(world, since=["one:1"]) == [[], ["reg.io/x/two:2"]]
    assert (
        listed(world, until=["1h"]) == []
        and len(listed(world, until=["2100-01-01T00:00:00Z"])) == 3
    )


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"foo": ["bar"]}, "invalid filter 'foo'"),
        ({"dangling": ["zz"]}, r"invalid filter 'dangling=\[zz\]'"),
        ({"before": ["nosuch"]}, "No such image: nosuch:latest"),
        ({"until": ["x"]}, 'invalid duration "x"'),
        ({"reference": ["["]}, "syntax error in pattern"),
    ],
)
def test_bad_filters(world: ImageWorld, filters: dict[str, list[str]], message: str) -> None:
    with pytest.raises((InvalidArgument, NotFound), match=message):
        world.images.list(all=False, filters=filters)


# -- Removing ----------------------------------------------------------------------------------------


async def test_remove_by_name_untags_first(world: ImageWorld) -> None:
    image = await add(world, "a:1")
    world.images.tag("a:1", "b:1")
    assert world.images.remove("a:1") == [{"Untagged": "a:1"}]
    assert world.images.remove("b:1") == [
        {"Untagged": "b:1"},
        {"Deleted": image.id},
        {"Deleted": image.chain_id},
    ]
    assert world.blobs() == set() and len(world.images) == 0
    assert [event[0] for event in world.events] == [
        *("tag", "import", "tag"),
        *("untag", "untag", "delete"),
    ]


async def test_remove_by_id(world: ImageWorld) -> None:
    image = await add(world, "a:1")
    world.images.tag("a:1", "b:1")
    short = image.id[7:19]
    message = (
        f"conflict: unable to delete {short} (must be forced) - "
        "image is referenced in multiple repositories"
    )
    with pytest.raises(Conflict) as caught:
        world.images.remove(short)
    assert caught.value.message == message and world.tags() == ["a:1", "b:1"]
    assert world.images.remove(short, force=True)[:3] == [
        {"Untagged": "a:1"},
        {"Untagged": "b:1"},
        {"Deleted": image.id},
    ]


async def test_image_of_a_stopped_container(world: ImageWorld) -> None:
    image = await add(world, "a:1")
    world.snapshots.prepare("k", image.parent)
    world.users[image.id] = [(CONTAINER, False)]
    short = image.id[7:19]
    with pytest.raises(Conflict) as caught:
        world.images.remove("a:1")
    assert caught.value.message == (
        'conflict: unable to remove repository reference "a:1" (must force) - container '
        f"{'c' * 12} is using its referenced image {short}"
    )
    with pytest.raises(Conflict) as caught:
        world.images.remove(image.id)
    assert caught.value.message == (
        f"conflict: unable to delete {short} (must be forced) - image is being used by stopped "
        f"container {'c' * 12}"
    )
    world.images.tag("a:1", "b:1")
    assert world.images.remove("b:1") == [{"Untagged": "b:1"}]
    assert world.images.remove(image.id, force=True) == [{"Untagged": "a:1"}, {"Deleted": image.id}]
    assert world.layers(), "the container's layers stay"
    world.snapshots.remove("k")
    world.reopen()
    assert world.layers() == set()


async def test_image_of_a_running_container(world: ImageWorld) -> None:
    image = await add(world, "a:1")
    world.users[image.id] = [(CONTAINER, True)]
    for force in (False, True):
        with pytest.raises(Conflict) as caught:
            world.images.remove(image.id, force=force)
        assert caught.value.message == (
            f"conflict: unable to delete {image.id[7:19]} (cannot be forced) - image is being used "
            f"by running container {'c' * 12}"
        )
    assert world.images.remove("a:1", force=True) == [{"Untagged": "a:1"}]
    assert world.images.resolve(image.id).repo_tags == []


async def test_shared_layers_stay(world: ImageWorld) -> None:
    one = await add(world, "a:1", "same")
    two = await add(world, "b:1", "same", message="other")
    assert one.chain_id == two.chain_id and one.id != two.id
    assert world.images.remove("a:1") == [{"Untagged": "a:1"}, {"Deleted": one.id}]
    assert world.images.resolve("b:1").size == 4 and len(world.layers()) == 1


@pytest.mark.parametrize(
    ("references", "single"),
    [
        ([], False),
        (["a:1"], True),
        (["a:1", "a:2"], False),
        (["a:1", "a@sha256:" + "0" * 64], True),
        (["a:1", "b@sha256:" + "0" * 64], False),
        (["a@sha256:" + "0" * 64, "a@sha256:" + "1" * 64], True),
    ],
)
def test_single_reference(references: list[str], single: bool) -> None:
    assert is_single_reference([parse_reference(text) for text in references]) is single


async def test_crash_between_blobs_and_rows_leaves_garbage_that_is_collected(
    world: ImageWorld,
) -> None:
    await add(world, "a:1")
    blobs, layers = world.blobs(), world.layers()
    world.content.put(b"a blob that nothing names")
    world.snapshots.extract(reader(archive([file("unnamed")])))
    world.reopen()
    assert (world.blobs(), world.layers()) == (blobs, layers)


@pytest.mark.parametrize("part", ["config", "manifest", "layer", "layer.json", "cut"])
async def test_an_image_that_lost_a_part_is_dropped_at_the_start(
    world: ImageWorld, part: str
) -> None:
    image = await add(world, "a:1")
    await add(world, "b:1")
    manifest = json.loads(world.content.read(Digest(image.record.manifest_digest)))
    blob = world.content.path(Digest(manifest["layers"][0]["digest"]))
    paths = {
        "config": world.content.path(image.id),
        "manifest": world.content.path(Digest(image.record.manifest_digest)),
        "layer": blob,
        "layer.json": f"{world.root}/layers/{image.layers[0][7:]}/layer.json",
        "cut": blob,
    }
    if part == "cut":
        os.truncate(paths[part], 0)
    else:
        os.unlink(paths[part])
    world.reopen()
    assert world.tags() == ["b:1"] and len(world.layers()) == 1
    await add(world, "a:1")
