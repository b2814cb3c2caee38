"""Pulling, against a registry in memory: what is fetched, what is said, what is left."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.content.store import DigestMismatch
from sampan.errors import InvalidArgument, NotFound, SampanError, Unavailable
from sampan.images.distribution.failures import RegistryFailure, Temporary
from sampan.images.distribution.settings import RegistrySettings
from sampan.images.pulling.transfers import Downloads
from sampan.oci.descriptor import local_platform
from support.fake_registries import CHUNK, FakeRegistries
from support.images import ImageWorld
from support.registry_images import Blob, Made, layer, make_image

pytestmark = pytest.mark.root

APP = "registry.test/team/app"


@pytest.fixture
def registry() -> FakeRegistries:
    return FakeRegistries()


@pytest.fixture
def world(tmp_path: Path, registry: FakeRegistries) -> Iterator[ImageWorld]:
    made = ImageWorld(tmp_path / "root", registry)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def short_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Downloads, "second", 0.001)


def three_layers(**options: Any) -> Made:
    return make_image([layer(300_000), layer(200_000, seed=1), layer(10, seed=2)], **options)


def said(world: ImageWorld, *wanted: str) -> list[str]:
    """The messages `ID: status` in order, those that begin so."""
    lines = []
    for message in world.messages:
        text = f"{message['id']}: {message['status']}" if "id" in message else message["status"]
        if not wanted or text.partition(": ")[2].startswith(wanted) or text.startswith(wanted):
            lines.append(text)
    return lines


def short(blob: Blob) -> str:
    return blob.digest[7:19]


def partials(world: ImageWorld) -> dict[str, int]:
    return {digest: size for digest, size, _ in world.content.partials()}


# -- What is fetched and said -------------------------------------------------------------------


async def test_an_image_is_pulled(world: ImageWorld, registry: FakeRegistries) -> None:
    made = registry.put("team/app", "v1", three_layers())
    [image] = await world.pull(APP, tag="v1")
    assert image.id == made.id
    assert image.repo_tags == [f"{APP}:v1"]
    assert image.repo_digests == [f"{APP}@{made.digest}"]
    digests = {blob.digest[7:] for blob in (*made.layers, made.config, made.manifest)}
    assert world.blobs() == digests
    assert len(world.layers()) == 3
    assert not partials(world)
    assert registry.bytes_of(made) == sum(len(blob.data) for blob in made.layers)
    assert world.events == [("pull", f"{APP}:v1", {"name": APP})]
    lines = said(world)
    assert lines[0] == "v1: Pulling from team/app"
    assert lines[1:4] == [f"{short(blob)}: Pulling fs layer" for blob in made.layers]
    assert lines[-2:] == [
        f"Digest: {made.digest}",
        f"Status: Downloaded newer image for {APP}:v1",
    ]
    for blob in made.layers:
        steps = [line.partition(": ")[2] for line in lines if line.startswith(short(blob))]
        order = list(dict.fromkeys(steps))
        assert order[0] == "Pulling fs layer"
        assert order[-3:] != []
        for earlier, later in (
            ("Downloading", "Verifying Checksum"),
            ("Verifying Checksum", "Download complete"),
            ("Download complete", "Pull complete"),
        ):
            assert order.index(earlier) < order.index(later), order


async def test_its_bars_are_dockers(world: ImageWorld, registry: FakeRegistries) -> None:
    made = registry.put("team/app", "v1", make_image([layer(3_000_000)]))
    await world.pull(APP, tag="v1")
    size = len(made.layers[0].data)
    bars = [message for message in world.messages if message["status"] == "Downloading"]
    assert bars[-1]["progressDetail"] == {"current": size, "total": size}
    assert bars[-1]["progress"].startswith("[" + "=" * 50 + "> ".rstrip() + "]")


async def test_again_is_one_request(world: ImageWorld, registry: FakeRegistries) -> None:
    registry.put("team/app", "v1", three_layers())
    first = await world.pull(APP, tag="v1")
    registry.asked.clear()
    world.messages.clear()
    assert await world.pull(APP, tag="v1") == first
    assert registry.asked == ["HEAD v1"]
    assert said(world)[-1] == f"Status: Image is up to date for {APP}:v1"


async def test_another_tag_of_it_fetches_a_manifest(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    made = registry.put("team/app", "v1", three_layers())
    registry.put("team/app", "latest", made)
    [first] = await world.pull(APP, tag="v1")
    registry.asked.clear()
    [second] = await world.pull(APP, tag="latest")
    assert first is second
    assert registry.asked == ["GET latest"]
    assert said(world)[-1] == f"Status: Downloaded newer image for {APP}:latest"
    assert world.tags() == [f"{APP}:latest", f"{APP}:v1"]


async def test_a_tag_that_moved_leaves_the_old_image_its_digest(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    old = registry.put("team/app", "v1", three_layers())
    await world.pull(APP, tag="v1")
    new = registry.put("team/app", "v1", make_image([layer(300_000), layer(7, seed=9)]))
    world.messages.clear()
    [image] = await world.pull(APP, tag="v1")
    assert image.id == new.id
    left = world.images.resolve(old.id)
    assert (left.repo_tags, left.repo_digests) == ([], [f"{APP}@{old.digest}"])
    assert f"{short(new.layers[0])}: Already exists" in said(world)
    assert said(world)[-1].startswith("Status: Downloaded newer image")


async def test_by_digest(world: ImageWorld, registry: FakeRegistries) -> None:
    made = registry.put("team/app", "v1", three_layers())
    [image] = await world.pull(f"{APP}@{made.digest}")
    assert (image.repo_tags, image.repo_digests) == ([], [f"{APP}@{made.digest}"])
    assert said(world)[0] == f"{APP}@{made.digest}: Pulling from team/app"
    assert said(world)[-1] == f"Status: Downloaded newer image for {APP}@{made.digest}"
    await world.pull(APP, tag=made.digest)
    assert said(world)[-1] == f"Status: Image is up to date for {APP}@{made.digest}"


async def test_all_tags(world: ImageWorld, registry: FakeRegistries) -> None:
    registry.put("team/app", "v1", three_layers())
    registry.put("team/app", "v2", make_image([layer(300_000)]))
    assert len(await world.pull(APP, all_tags=True)) == 2
    assert world.tags() == [f"{APP}:v1", f"{APP}:v2"]
    assert said(world)[-1] == f"Status: Downloaded newer image for {APP}"
    await world.pull(APP, all_tags=True)
    assert said(world)[-1] == f"Status: Image is up to date for {APP}"


@pytest.mark.parametrize(
    ("compression", "dockers"),
    [("gzip", False), ("zstd", False), ("", False), ("gzip", True), ("", True)],
)
async def test_what_layers_come_in(
    world: ImageWorld, registry: FakeRegistries, compression: str, dockers: bool
) -> None:
    made = three_layers(docker=dockers, compression=compression)
    registry.put("team/app", "v1", made)
    [image] = await world.pull(APP, tag="v1")
    tree = world.snapshots.layers.tree(image.chain_id or pytest.fail("no layers"))
    assert os.path.getsize(os.path.join(tree, "data2/random")) == 10


async def test_a_layer_that_comes_twice(world: ImageWorld, registry: FakeRegistries) -> None:
    same = layer(50_000)
    made = registry.put("team/app", "v1", make_image([same, layer(10, seed=1), same]))
    [image] = await world.pull(APP, tag="v1")
    assert len(world.layers()) == 3
    assert registry.served[made.layers[0].digest] == len(made.layers[0].data)
    assert image.size == 50_000 + 10 + 50_000


async def test_a_known_tree_in_another_blob_is_fetched_and_not_unpacked(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    base = layer(50_000)
    registry.put("team/app", "v1", make_image([base]))
    await world.pull(APP, tag="v1")
    other = registry.put("team/app", "v2", make_image([base, layer(5, seed=1)], compression="zstd"))
    world.messages.clear()
    await world.pull(APP, tag="v2")
    assert not said(world, f"{short(other.layers[0])}: Extracting")
    assert other.layers[0].digest[7:] in world.blobs()


async def test_the_same_image_in_other_blobs_is_not_fetched(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    made = registry.put("team/app", "v1", three_layers())
    [first] = await world.pull(APP, tag="v1")
    other = three_layers(compression="zstd")
    assert other.id == made.id
    registry.put("team/other", "v1", other)
    [second] = await world.pull("registry.test/team/other", tag="v1")
    assert first is second
    assert registry.bytes_of(other) == 0


# -- Platforms ----------------------------------------------------------------------------------


def index_of(registry: FakeRegistries, entries: dict[str, Made]) -> Blob:
    import json

    manifests = []
    for platform, made in entries.items():
        registry.put("team/app", "", made)
        names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        manifests.append({**made.manifest.descriptor, "platform": names})
    kind = "application/vnd.oci.image.index.v1+json"
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": manifests}
    blob = Blob(kind, json.dumps(document).encode())
    registry.put_manifest("team/app", "multi", blob)
    return blob


async def test_an_index_gives_our_platform(world: ImageWorld, registry: FakeRegistries) -> None:
    local = local_platform()
    ours = make_image([layer(10)], platform=("linux", local.architecture))
    foreign = make_image([layer(20)], platform=("linux", "mips64le"))
    index = index_of(registry, {"linux/mips64le": foreign, f"linux/{local.architecture}": ours})
    [image] = await world.pull(APP, tag="multi")
    assert image.id == ours.id
    assert image.repo_digests == [f"{APP}@{index.digest}"]
    assert image.record.index_digest == index.digest
    assert index.digest[7:] in world.blobs()
    registry.asked.clear()
    await world.pull(APP, tag="multi")
    assert registry.asked == ["HEAD multi"]
    [image] = await world.pull(APP, tag="multi", platform="linux/mips64le")
    assert image.id == foreign.id
    [image] = await world.pull(APP, tag="multi")
    assert image.id == ours.id


async def test_an_index_without_our_platform(world: ImageWorld, registry: FakeRegistries) -> None:
    index_of(registry, {"linux/mips64le": make_image([layer(20)], platform=("linux", "mips64le"))})
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list"):
        await world.pull(APP, tag="multi", platform="linux/s390x")
    assert not world.blobs()


async def test_another_platform_than_asked_for_is_warned_of(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    registry.put("team/app", "v1", three_layers(platform=("linux", "amd64")))
    await world.pull(APP, tag="v1", platform="linux/arm64")
    assert said(world)[-1] == (
        f"WARNING: image with reference {APP} was found but does not match the specified "
        "platform: wanted linux/arm64, actual: linux/amd64"
    )


# -- Refusals -----------------------------------------------------------------------------------


async def test_references_that_cannot_be(world: ImageWorld) -> None:
    for reference, tag, words in (
        ("team/APP", "x", "repository name must be lowercase"),
        ("a", "b/c", "invalid tag format"),
        ("a", "sha256:aaaa", "invalid tag format"),
        ("host", None, "reserved"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            await world.pull(reference, tag=tag)
    assert not world.messages


async def test_no_such_tag(world: ImageWorld, registry: FakeRegistries) -> None:
    with pytest.raises(NotFound):
        await world.pull(APP, tag="nope")
    assert not world.messages


async def test_what_is_no_image(world: ImageWorld, registry: FakeRegistries) -> None:
    made = three_layers()
    data = made.manifest.data.replace(
        b"application/vnd.oci.image.config.v1+json", b"application/vnd.cncf.helm.config.v1+json"
    )
    registry.put_manifest("team/app", "chart", Blob(made.manifest.media_type, data))
    with pytest.raises(
        InvalidArgument, match=r"Encountered remote .*helm.*\(unknown\) when fetching"
    ):
        await world.pull(APP, tag="chart")


async def test_layers_and_config_that_do_not_fit(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    made = three_layers()
    registry.put("team/app", "v1", made)
    lying = make_image([layer(1)])
    data = made.manifest.data.replace(made.config.digest.encode(), lying.config.digest.encode())
    data = data.replace(
        b'"size": %d' % len(made.config.data), b'"size": %d' % len(lying.config.data)
    )
    registry.blobs[lying.config.digest] = lying.config.data
    registry.put_manifest("team/app", "v2", Blob(made.manifest.media_type, data))
    with pytest.raises(InvalidArgument, match="layers from manifest don't match"):
        await world.pull(APP, tag="v2")
    assert not world.blobs() and not world.layers()


async def test_a_layer_that_is_not_its_diff_id(world: ImageWorld, registry: FakeRegistries) -> None:
    made, other = make_image([layer(1000)]), make_image([layer(1000, seed=4)])
    data = made.manifest.data.replace(
        made.layers[0].digest.encode(), other.layers[0].digest.encode()
    ).replace(b'"size": %d' % len(made.layers[0].data), b'"size": %d' % len(other.layers[0].data))
    registry.put("team/app", "v1", made)
    registry.put("team/app", "v2", other)
    registry.put_manifest("team/app", "v3", Blob(made.manifest.media_type, data))
    label = short(other.layers[0])
    with pytest.raises(InvalidArgument, match=f"failed to register layer {label}: invalid diffID"):
        await world.pull(APP, tag="v3")
    assert not world.blobs() and not world.layers()


async def test_a_blob_that_is_not_the_tree_that_is_there(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    """Its diff ID is known, so nothing would be unpacked; `push` would spread other bytes, though."""
    base, above = layer(50_000), layer(10, seed=1)
    registry.put("team/app", "v1", make_image([base]))
    await world.pull(APP, tag="v1")
    honest, other = make_image([base, above]), make_image([layer(50_000, seed=9)])
    data = honest.manifest.data.replace(
        honest.layers[0].digest.encode(), other.layers[0].digest.encode()
    ).replace(b'"size": %d' % len(honest.layers[0].data), b'"size": %d' % len(other.layers[0].data))
    registry.put("team/app", "honest", honest)
    registry.put("team/app", "other", other)
    registry.put_manifest("team/app", "lie", Blob(honest.manifest.media_type, data))
    label = short(other.layers[0])
    blobs = world.blobs()
    with pytest.raises(InvalidArgument, match=f"failed to register layer {label}: invalid diffID"):
        await world.pull(APP, tag="lie")
    assert world.blobs() == blobs
    await world.pull(APP, tag="honest")


# -- Faults -------------------------------------------------------------------------------------


async def test_a_cut_is_continued(world: ImageWorld, registry: FakeRegistries) -> None:
    made = registry.put("team/app", "v1", three_layers())
    digest = made.layers[0].digest
    registry.cut_after[digest] = [100_000, 100_000]
    await world.pull(APP, tag="v1")
    assert registry.served[digest] == len(made.layers[0].data)
    assert [line for line in registry.asked if line.startswith(f"BLOB {digest}")] == [
        f"BLOB {digest} 0",
        f"BLOB {digest} {7 * CHUNK}",
        f"BLOB {digest} {14 * CHUNK}",
    ]
    assert said(world, "Retrying") == [f"{short(made.layers[0])}: Retrying in 1 second"] * 2


async def test_a_registry_without_ranges(world: ImageWorld, registry: FakeRegistries) -> None:
    made = registry.put("team/app", "v1", three_layers())
    registry.knows_ranges = False
    registry.cut_after[made.layers[0].digest] = [100_000]
    [image] = await world.pull(APP, tag="v1")
    assert image.size == 500_010


async def test_cuts_without_end_end(world: ImageWorld, registry: FakeRegistries) -> None:
    made = registry.put("team/app", "v1", three_layers())
    digest = made.layers[1].digest
    registry.cut_after[digest] = [0] * 9
    with pytest.raises(Temporary, match=f"layer {short(made.layers[1])}: unexpected EOF"):
        await world.pull(APP, tag="v1")
    assert len(registry.cut_after[digest]) == 4
    waits = [line.rpartition("in ")[2] for line in said(world, "Retrying")]
    assert waits[:3] == ["1 second", "2 seconds", "1 second"]
    assert not world.blobs() and not world.layers()
    await world.pull(APP, tag="v1")
    for blob in made.layers:
        assert registry.served[blob.digest] == len(blob.data)


async def test_a_registry_that_asks_for_patience(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    made = registry.put("team/app", "v1", three_layers())
    registry.failures[made.layers[0].digest] = [Temporary("toomanyrequests: slow", retry_after=7)]
    await world.pull(APP, tag="v1")
    assert said(world, "Retrying")[0].endswith("Retrying in 7 seconds")
    made = registry.put("team/app", "v2", make_image([layer(5, seed=77)]))
    registry.failures[made.layers[0].digest] = [Temporary("toomanyrequests", retry_after=86400)]
    with pytest.raises(Temporary, match="toomanyrequests"):
        await world.pull(APP, tag="v2")


async def test_a_lie_about_the_digest(world: ImageWorld, registry: FakeRegistries) -> None:
    made = registry.put("team/app", "v1", three_layers())
    digest = made.layers[0].digest
    good = registry.blobs[digest]
    registry.blobs[digest] = good[:100_000] + bytes(5) + good[100_005:]
    with pytest.raises(DigestMismatch, match=f"verification failed for digest {digest}"):
        await world.pull(APP, tag="v1")
    assert not world.blobs() and not world.layers() and digest not in partials(world)
    registry.blobs[digest] = good
    await world.pull(APP, tag="v1")


@pytest.mark.parametrize("change", [-1, 1])
async def test_a_lie_about_the_length(
    world: ImageWorld, registry: FakeRegistries, change: int
) -> None:
    made = registry.put("team/app", "v1", three_layers())
    digest = made.layers[0].digest
    data = registry.blobs[digest]
    registry.blobs[digest] = data[:-1] if change < 0 else data + b"x"
    with pytest.raises(RegistryFailure if change > 0 else Temporary, match=short(made.layers[0])):
        await world.pull(APP, tag="v1")
    assert not world.blobs() and not world.layers()


async def test_cuts_and_lies_without_end_end(world: ImageWorld, registry: FakeRegistries) -> None:
    """What comes in parts may not belong together and is fetched anew, but not for ever."""
    made = registry.put("team/app", "v1", three_layers())
    digest, good = made.layers[0].digest, registry.blobs[made.layers[0].digest]
    registry.blobs[digest] = good[:-5] + bytes(5)
    registry.cut_after[digest] = [100_000, len(good)] * 50
    with pytest.raises(DigestMismatch, match=f"verification failed for digest {digest}"):
        await world.pull(APP, tag="v1")
    assert registry.served[digest] <= 3 * len(good)
    assert digest not in partials(world)


async def test_damaged_remains_are_fetched_anew(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    made = registry.put("team/app", "v1", three_layers())
    digest = made.layers[0].digest
    path = world.root / f"ingest/sha256-{digest[7:]}"
    path.write_bytes(bytes(100_000))
    [image] = await world.pull(APP, tag="v1")
    assert image.size == 500_010
    assert registry.served[digest] == 2 * len(made.layers[0].data) - 100_000


async def test_a_full_disk_is_told_with_the_layer(
    world: ImageWorld, registry: FakeRegistries, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sampan.content.partial import Partial

    made = registry.put("team/app", "v1", make_image([layer(3_000_000)]))
    write, room = Partial.write, [1_200_000]

    def limited(self: Partial, data: bytes) -> None:
        if self.size + len(data) > room[0]:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(Partial, "write", limited)
    label = short(made.layers[0])
    with pytest.raises(
        Unavailable, match=f"failed to store layer {label}: no space left on device"
    ):
        await world.pull(APP, tag="v1")
    had = partials(world)[made.layers[0].digest]
    assert 1_000_000 < had <= 1_200_000
    room[0] = 1 << 40
    registry.served.clear()
    await world.pull(APP, tag="v1")
    assert registry.bytes_of(made) == len(made.layers[0].data) - had


# -- Ends in the middle, and two at once --------------------------------------------------------


async def test_a_later_engine_fetches_only_the_rest(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    made = registry.put("team/app", "v1", three_layers())
    registry.stall[made.layers[0].digest] = 200_000
    pulling = asyncio.ensure_future(world.pull(APP, tag="v1"))
    await registry.stalled.wait()
    while len(said(world, "Pull complete")) < 2:
        await asyncio.sleep(0.005)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert registry.open_now == 0
    assert not world.blobs() and not world.layers()
    world.reopen()
    assert set(partials(world)) == {blob.digest for blob in made.layers}
    registry.stall.clear()
    await world.pull(APP, tag="v1")
    assert registry.bytes_of(made) == sum(len(blob.data) for blob in made.layers)
    assert not partials(world)


async def test_two_pulls_fetch_a_layer_once_and_one_may_leave(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    shared = layer(400_000)
    one = registry.put("team/app", "v1", make_image([shared, layer(10, seed=1)]))
    registry.put("team/app", "v2", make_image([shared, layer(10, seed=2)]))
    registry.stall[one.layers[0].digest] = 200_000
    first = asyncio.ensure_future(world.pull(APP, tag="v1"))
    await registry.stalled.wait()
    second = asyncio.ensure_future(world.pull(APP, tag="v2"))
    while len(said(world, "Pulling fs layer")) < 4:
        await asyncio.sleep(0.005)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert registry.open_now == 1
    registry.released.set()
    [image] = await second
    assert image.size == 400_010
    assert registry.served[one.layers[0].digest] == len(one.layers[0].data)
    assert world.tags() == [f"{APP}:v2"]


async def test_who_joined_a_failing_download_tries_by_itself(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    made = registry.put("team/app", "v1", make_image([layer(400_000)]))
    registry.put("team/app", "v2", made)
    digest = made.layers[0].digest
    registry.stall[digest] = 200_000
    first = asyncio.ensure_future(world.pull(APP, tag="v1"))
    await registry.stalled.wait()
    second = asyncio.ensure_future(world.pull(APP, tag="v2"))
    while len(said(world, "Pulling fs layer")) < 2:
        await asyncio.sleep(0.005)
    registry.failures[digest] = [RegistryFailure("denied: no access for you")]
    registry.cut_after[digest] = [0]
    registry.stall.clear()
    registry.released.set()
    with pytest.raises(SampanError, match="denied"):
        await first
    [image] = await second
    assert image.id == made.id


async def test_eight_at_once(world: ImageWorld, registry: FakeRegistries) -> None:
    base = layer(100_000)
    for number in range(8):
        made = make_image([base, layer(20_000, seed=number + 1)])
        registry.put("team/app", f"v{number}", made)
    await asyncio.gather(*(world.pull(APP, tag=f"v{number}") for number in range(8)))
    assert len(world.tags()) == 8
    assert registry.served[made.layers[0].digest] == len(made.layers[0].data)
    assert registry.open_most <= 3 + 8  # configs do not wait for a place
    assert not partials(world)


async def test_no_more_at_once_than_the_setting_says(
    world: ImageWorld, registry: FakeRegistries
) -> None:
    registry.settings = RegistrySettings(max_concurrent_downloads=2)
    layers = [layer(60_000, seed=number) for number in range(6)]
    made = registry.put("team/app", "v1", make_image(layers))
    await world.pull(APP, tag="v1")
    assert registry.open_most == 2
    waiting = {line.partition(":")[0] for line in said(world, "Waiting")}
    assert len(waiting) == 4 and waiting <= {short(blob) for blob in made.layers}


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_cancelled_nothing_is_left(
    world: ImageWorld, registry: FakeRegistries, seed: int
) -> None:
    """Pulls with layers in common, cancelled and cut at random moments; then each of them once."""
    chance = random.Random(seed)
    common = [layer(150_000, seed=number) for number in range(4)]
    made = []
    for number in range(6):
        layers = [*chance.sample(common, 2), layer(30_000, seed=100 + number)]
        made.append(registry.put("team/app", f"v{number}", make_image(layers)))
    blobs = [blob.digest for image in made for blob in image.layers]

    async def disturbed(number: int) -> None:
        pulling = asyncio.ensure_future(world.pull(APP, tag=f"v{number}"))
        await asyncio.sleep(chance.random() * 0.05)
        if chance.random() < 0.7:
            pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)

    for _ in range(4):
        for digest in chance.sample(blobs, 3):
            registry.cut_after[digest] = [chance.randrange(0, 60_000)]
        registry.failures[chance.choice(blobs)] = [RegistryFailure("denied: by chance")]
        await asyncio.gather(*(disturbed(number) for number in range(6)))
        assert registry.open_now == 0
        assert not [name for name in world.layers() if name.startswith("tmp-")]
        assert not open_files(world)
    registry.cut_after.clear()
    registry.failures.clear()
    await asyncio.gather(*(world.pull(APP, tag=f"v{number}") for number in range(6)))
    parts = [blob for image in made for blob in (*image.layers, image.config, image.manifest)]
    assert world.blobs() == {blob.digest[7:] for blob in parts}
    assert not partials(world)
    for image in made:
        assert world.images.resolve(image.id).size == 330_000


def open_files(world: ImageWorld) -> list[str]:
    """Descriptors of this process on files that are being fetched, or of layers being made."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    places = (f"{world.root}/ingest/", f"{world.root}/layers/")
    return [path for path in found if path.startswith(places)]
