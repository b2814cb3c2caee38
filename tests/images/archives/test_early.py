"""Layers that are laid out before the archive says what they are."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator

import pytest

from sampan.content.compression import BadCompression
from sampan.errors import InvalidArgument
from sampan.images.archives.early import EarlyLayers
from sampan.oci.digest import digest_of
from support.images import ImageWorld
from support.rootfs import image_tar
from support.tars import archive, directory, file
from support.waiting import wait_for

pytestmark = pytest.mark.root

LAYER = archive([directory("d"), *(file(f"d/{n}", b"%d" % n * 1000) for n in range(50))])
DIFF = digest_of(LAYER)


async def test_a_layer_is_there_before_the_archive_ends(world: ImageWorld) -> None:
    """What is stored is unpacked while the client still sends."""
    data = image_tar("early:1", [LAYER])
    cut = data.index(b"manifest.json")

    async def stream() -> AsyncIterator[bytes]:
        yield data[:cut]
        await asyncio.to_thread(wait_for, lambda: _laid_out(world), "the layer's tree")
        assert not world.images.list(all=True, filters={})
        yield data[cut:]

    names = await world.images.load(stream(), quiet=True, progress=world.messages.append)
    assert names == ["early:1"]
    assert all(len(name) == 64 for name in world.layers())


def _laid_out(world: ImageWorld) -> bool:
    return any(
        os.path.exists(world.root / "layers" / name / "fs/d/49")
        for name in world.layers()
        if name.startswith("tmp-")
    )


async def test_what_only_looks_like_a_layer_does_no_harm(world: ImageWorld) -> None:
    """Broken, foreign and unused members are unpacked in vain, and forgotten."""
    extra = archive(
        [
            file("broken.gz", gzip.compress(b"x" * 100_000)[:-20]),
            file("not-a-tar.gz", gzip.compress(os.urandom(10_000))),
            file("escaping.tar", archive([file("../out", b"x")])),
            file("unused.tar", archive([file("unused", b"x" * 5_000)])),
        ]
    )
    data = extra.removesuffix(bytes(1024)) + image_tar("fine:1", [LAYER])
    assert await world.load(data) == ["fine:1"]
    assert len(world.layers()) == 1
    assert all(len(name) == 64 for name in world.layers())


async def test_a_load_that_fails_leaves_no_tree(world: ImageWorld) -> None:
    with pytest.raises(InvalidArgument, match="does not contain a manifest"):
        await world.load(archive([file("layer.tar", LAYER)]))
    assert world.layers() == set()
    assert world.blobs() == set()


async def test_a_load_that_is_cut_off_leaves_no_tree(world: ImageWorld) -> None:
    """Also when the layer was already laid out."""
    data = image_tar("cut:1", [LAYER])
    cut = data.index(b"manifest.json")

    async def stream() -> AsyncIterator[bytes]:
        yield data[:cut]
        await asyncio.to_thread(wait_for, lambda: _laid_out(world), "the layer's tree")
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await world.images.load(stream(), quiet=True, progress=world.messages.append)
    assert world.layers() == set()
    assert world.blobs() == set()


async def test_an_archive_with_a_wrong_diff_id_leaves_no_tree(world: ImageWorld) -> None:
    wrong = f"sha256:{'0' * 64}"
    raw = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [wrong]}}).encode()
    with pytest.raises(InvalidArgument, match="invalid diffID"):
        await world.load(_one_layer(raw, LAYER))
    assert world.layers() == set()


async def test_blobs_that_are_there_are_not_unpacked_again(
    world: ImageWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[str] = []
    offer = EarlyLayers.offer
    monkeypatch.setattr(
        EarlyLayers, "offer", lambda self, blob: (offered.append(blob), offer(self, blob))
    )
    data = image_tar("twice:1", [LAYER])
    await world.load(data)
    first = len(offered)
    assert DIFF in offered
    await world.load(data)
    assert DIFF not in offered[first:]


async def test_the_same_blob_twice_in_one_image(world: ImageWorld) -> None:
    """A blob may be two layers of an image: each has a tree of its own place."""
    assert await world.load(image_tar("twice:1", [LAYER, LAYER])) == ["twice:1"]
    assert len(world.layers()) == 2


async def test_progress_tells_how_far_a_layer_is(world: ImageWorld) -> None:
    big = archive([file("random", os.urandom(9 << 20))])
    await world.load(image_tar("big:1", [big]))
    told = [
        message["progressDetail"]
        for message in world.messages
        if message.get("status") == "Loading layer"
    ]
    assert [detail["current"] for detail in told] == sorted(d["current"] for d in told)
    assert told[-1] == {"current": len(big), "total": len(big)}
    assert len(told) >= 3


async def test_a_damaged_layer_that_is_used_fails_the_load(world: ImageWorld) -> None:
    """The failure of the early attempt is the load's, once the blob is known to be a layer."""
    bad = gzip.compress(LAYER)[:-30]
    raw = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIFF]}}).encode()
    with pytest.raises(BadCompression):
        await world.load(_one_layer(raw, bad))
    assert world.layers() == set()


def _one_layer(config: bytes, layer: bytes) -> bytes:
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["b:1"], "Layers": ["l"]}]).encode()
    members = {"l": layer, "c.json": config, "manifest.json": manifest}
    return archive([file(name, data) for name, data in members.items()])
