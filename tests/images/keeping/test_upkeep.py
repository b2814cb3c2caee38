"""What goes and what stays: the collector under running operations, prune, the disk budget, downloads."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from sampan.errors import Conflict, InvalidArgument
from sampan.images.keeping.upkeep import PARTIAL_KEPT_S
from sampan.oci.digest import Digest, digest_of
from support.images import ImageWorld
from support.rootfs import image_tar
from support.tars import archive, file, reader
from support.waiting import wait_for

pytestmark = pytest.mark.root

BASE = archive([file("base", b"b" * 50_000)])


def own(name: str, size: int = 20_000) -> bytes:
    return archive([file(name, name.encode() * (size // len(name)))])


async def add(world: ImageWorld, *names: str) -> None:
    """Images of one shared layer and one of their own, added in this order."""
    for name in names:
        await world.load(image_tar(f"{name}:1", [BASE, own(name)], {"Labels": {"name": name}}))


def settled(world: ImageWorld) -> None:
    """Wait until what is deleted in threads is gone."""
    wait_for(lambda: not os.listdir(world.root / "ingest"), "the deletions")


# -- Space -----------------------------------------------------------------------------------------


async def test_bytes_are_counted_once(world: ImageWorld) -> None:
    await add(world, "one", "two")
    space = world.images.upkeep.space
    parts = space.by_image()
    blobs = sum(path.stat().st_size for path in (world.root / "blobs/sha256").iterdir())
    layers = 50_000 + 2 * len(b"one" * 6666)
    assert space.total() == blobs + layers
    one, two = (parts[world.images.resolve(name).id] for name in ("one:1", "two:1"))
    assert one.shared == two.shared == 50_000 + len(BASE)
    assert one.size + two.size - one.shared == space.total()
    assert space.of([world.images.resolve("one:1")]) == one.size
    world.images.remove("one:1")
    assert space.total() == two.size


async def test_what_came_back_is_what_the_disk_has_again(world: ImageWorld) -> None:
    await add(world, "one", "two")
    upkeep = world.images.upkeep
    before = upkeep.space.total()
    done, freed = await upkeep.prune({"dangling": ["false"], "label": ["name=one"]})
    assert done[0] == {"Untagged": "one:1"}
    assert [list(item) for item in done] == [["Untagged"], ["Deleted"], ["Deleted"]]
    assert freed == before - upkeep.space.total()


# -- The collector ---------------------------------------------------------------------------------


async def test_a_stalled_operation_holds_only_what_it_saw(world: ImageWorld) -> None:
    """A load that hangs does not keep the disk from being given back."""
    await add(world, "one", "two")
    with world.images._register.hold("load of somebody slow"):
        fresh = world.content.put(b"made by the slow one")
        seen = Digest(world.images.resolve("two:1").record.manifest_digest)
        assert world.content.has(seen)
        await add(world, "three")
        world.images.remove("one:1")
        world.images.remove("two:1")
        assert world.content.seen(fresh) and world.content.seen(seen)
        left = world.blobs()
        assert {fresh[7:], seen[7:]} <= left
        assert digest_of(own("one"))[7:] not in left
    left = world.blobs()
    assert not {fresh[7:], seen[7:]} & left
    world.images.remove("three:1")
    settled(world)
    assert (world.blobs(), world.layers()) == (set(), set())


async def test_what_save_reads_stays_without_a_name(world: ImageWorld) -> None:
    await add(world, "one", "two")
    image = world.images.resolve("one:1")
    with world.images._register.hold("save", [image]):
        world.images.remove("one:1")
        world.images.remove("two:1")
        assert digest_of(own("one"))[7:] in world.blobs()
        assert digest_of(own("two"))[7:] not in world.blobs()
        assert len(world.layers()) == 2
    assert (world.blobs(), world.layers()) == (set(), set())


async def test_a_container_keeps_layers_until_it_goes(world: ImageWorld) -> None:
    await add(world, "one")
    image = world.images.resolve("one:1")
    world.snapshots.prepare("c", image.parent)
    world.images.remove("one:1", force=True)
    assert world.blobs() == set()
    assert len(world.layers()) == 2
    world.snapshots.remove("c")
    assert world.layers() == set()


async def test_what_a_crash_left_goes_at_the_start(world: ImageWorld) -> None:
    await add(world, "one")
    before = world.blobs(), world.layers()
    with world.images._register.hold("load"):
        world.content.put(b"unnamed")
        world.snapshots.extract(reader(own("unnamed")), None)
        (world.root / "l/77").symlink_to("../layers/none/fs")
        world.reopen()
        assert (world.blobs(), world.layers()) == before
        assert not os.path.lexists(world.root / "l/77")


# -- Downloads -------------------------------------------------------------------------------------


async def test_downloads_are_kept_for_a_day(world: ImageWorld) -> None:
    names = [digest_of(b"old"), digest_of(b"new"), digest_of(b"here")]
    for name in names:
        partial = world.content.partial(name)
        partial.resume(1 << 20)
        partial.write(b"half")
        partial.suspend()
    world.content.put(b"here")  # came another way
    old = world.root / f"ingest/sha256-{names[0][7:]}"
    before = time.time() - PARTIAL_KEPT_S - 5
    os.utime(old, (before, before))
    world.images.upkeep.tidy()
    assert [digest for digest, _, _ in world.content.partials()] == [names[1]]


# -- Prune -----------------------------------------------------------------------------------------


async def test_prune_takes_what_has_no_name_and_no_container(world: ImageWorld) -> None:
    await add(world, "one", "two", "three")
    for name in ("two", "three"):
        world.images.tag("one:1", f"{name}:1")  # takes their names away
    assert len(world.images) == 3
    nameless = [image for image in world.images.list(all=True, filters={}) if not image.repo_tags]
    world.users[nameless[0].id] = [("c" * 64, False)]
    done, freed = await world.images.upkeep.prune({})
    assert {"Deleted": nameless[1].id} in done and freed > 20_000
    assert len(world.images) == 2
    world.users.clear()
    assert (await world.images.upkeep.prune({"dangling": ["true"]}))[1] > 20_000
    old = {"until": ["1h"], "dangling": ["false"]}  # the images say that they are of 2023
    assert (await world.images.upkeep.prune(old))[0] != []
    assert world.blobs() == set()


async def test_filters_of_prune(world: ImageWorld) -> None:
    await add(world, "one", "two")
    prune = world.images.upkeep.prune
    everything = {"dangling": ["false"]}
    assert await prune({**everything, "label": ["nope"]}) == ([], 0)
    assert await prune({**everything, "label!": ["name"]}) == ([], 0)
    assert await prune({**everything, "until": ["2020-01-01T00:00:00Z"]}) == ([], 0)
    assert await prune({}) == ([], 0)
    assert world.tags() == ["one:1", "two:1"]
    await prune({**everything, "label!": ["name=one"]})
    assert world.tags() == ["one:1"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"foo": ["x"]}, "Invalid filter 'foo'"),
        ({"dangling": ["maybe"]}, r"Invalid filter 'dangling=\[maybe\]'"),
        ({"until": ["x"]}, 'failed to parse value as time or duration: "x"'),
        ({"until": ["1h", "2h"]}, "more than one until filter specified"),
    ],
)
async def test_refused_filters(
    world: ImageWorld, filters: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        await world.images.upkeep.prune(filters)


async def test_one_prune_at_a_time_and_others_between(world: ImageWorld) -> None:
    """What comes into use while a prune is under way stays."""
    await add(world, "one", "two", "three")
    prune = world.images.upkeep.prune
    first = asyncio.ensure_future(prune({"dangling": ["false"]}))
    await asyncio.sleep(0)
    assert len(world.images) == 2
    with pytest.raises(Conflict, match="already running"):
        await prune({})
    kept = next(iter(world.images.list(all=True, filters={})))
    world.users[kept.id] = [("c" * 64, True)]
    await first
    assert world.images.list(all=True, filters={}) == [kept]
    assert (await prune({}))[0] == []


# -- The budget ------------------------------------------------------------------------------------


def use_in_order(world: ImageWorld, *names: str) -> None:
    """Make these images be used one after the other, long ago."""
    for minutes, name in enumerate(names):
        image = world.images.resolve(f"{name}:1")
        moment = minutes * 60_000_000_000 + 1
        world.images._register._rewrite(image, used_ns=moment, tagged_ns=0)


async def test_the_least_recently_used_go_first(world: ImageWorld) -> None:
    await add(world, "one", "two", "three", "four")
    use_in_order(world, "three", "one", "four", "two")
    upkeep = world.images.upkeep
    world.events.clear()
    upkeep.budget_bytes = upkeep.space.total() - 1
    upkeep.trim()
    assert world.tags() == ["four:1", "one:1", "two:1"]
    assert [event[0] for event in world.events] == ["untag", "delete"]
    upkeep.budget_bytes = 1
    upkeep.trim()
    assert world.tags() == ["two:1"]  # the last one used stays


async def test_used_and_pinned_images_stay(
    world: ImageWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await add(world, "one", "two", "three", "four", "five")
    use_in_order(world, "one", "two", "three", "four", "five")
    upkeep = world.images.upkeep
    upkeep.pin("one:1", True)
    world.users[world.images.resolve("two:1").id] = [("c" * 64, False)]
    upkeep.budget_bytes = 1
    with world.images._register.hold("save", [world.images.resolve("three:1")]):
        upkeep.trim()
        assert world.tags() == ["five:1", "one:1", "three:1", "two:1"]
    upkeep.trim()
    assert world.tags() == ["five:1", "one:1", "two:1"]
    assert "all are in use, pinned or new" in caplog.text
    world.reopen()
    assert world.images.resolve("one:1").record.pinned
    await add(world, "one")
    assert world.images.resolve("one:1").record.pinned  # also when it is loaded again
    world.images.upkeep.pin("one:1", False)
    world.images.upkeep.budget_bytes = 1
    use_in_order(world, "one", "two", "five")
    world.images.upkeep.trim()
    assert world.tags() == ["five:1", "two:1"]


async def test_a_load_keeps_the_budget(world: ImageWorld) -> None:
    await add(world, "one", "two")
    world.images.upkeep.budget_bytes = world.images.upkeep.space.total() + 1000
    use_in_order(world, "two", "one")
    await add(world, "three")
    assert world.tags() == ["one:1", "three:1"]


async def test_the_last_use_is_kept(world: ImageWorld) -> None:
    await add(world, "one")
    use_in_order(world, "one")
    world.images.use(world.images.resolve("one:1"))
    used_ns = world.images.resolve("one:1").record.used_ns
    assert used_ns > time.time_ns() - 60_000_000_000
    world.images.use(world.images.resolve("one:1"))  # not written again within a minute
    world.reopen()
    assert world.images.resolve("one:1").record.used_ns == used_ns


def test_the_host_image_cannot_be_pinned(world: ImageWorld) -> None:
    with pytest.raises(InvalidArgument, match="host"):
        world.images.upkeep.pin("host", True)


async def test_an_image_is_whole_without_its_index(world: ImageWorld) -> None:
    """The index that it was chosen from counts among its blobs, and is no loss."""
    await add(world, "one")
    image = world.images.resolve("one:1")
    index = world.content.put(b'{"schemaVersion":2,"manifests":[]}')
    world.images._register._rewrite(image, index_digest=index)
    world.reopen()
    assert index[7:] in world.blobs()
    size = world.images.upkeep.space.total()
    world.content.delete(index)
    world.reopen()
    assert world.tags() == ["one:1"]
    assert world.images.resolve("one:1").record.index_digest == ""
    assert world.images.upkeep.space.total() == size - 34
