"""`import` makes an image of a root file system's tar."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from sampan.errors import InvalidArgument
from support.images import ImageWorld, pieces
from support.tars import archive, directory, file

pytestmark = pytest.mark.root

TREE = archive([directory("bin"), file("bin/sh", b"#!" * 1000, mode=0o755)])


async def test_import_is_found_by_every_name(world: ImageWorld) -> None:
    image = await world.images.import_(pieces(TREE), reference="demo:1", message="")
    for name in ("demo:1", "docker.io/library/demo:1", image.id, image.id[7:], image.id[7:15]):
        assert world.images.resolve(name) is image
    assert image.repo_tags == ["demo:1"] and image.size == 2000
    assert image.comment == "Imported from -" and image.os == "linux"
    assert world.events == [
        ("tag", image.id, {"name": "demo:1"}),
        ("import", image.id, {"name": image.id}),
    ]


@pytest.mark.parametrize("encode", [bytes, gzip.compress])
async def test_compressed_or_not_the_layer_is_the_same(
    world: ImageWorld, encode: type[bytes]
) -> None:
    image = await world.images.import_(pieces(encode(TREE), 100), reference=None)
    import hashlib

    assert image.layers == ["sha256:" + hashlib.sha256(TREE).hexdigest()]
    assert image.repo_tags == []


async def test_it_survives_a_restart(world: ImageWorld) -> None:
    image = await world.images.import_(
        pieces(TREE), reference="demo", changes=["CMD sleep 1", "LABEL a=b"]
    )
    world.reopen()
    again = world.images.resolve("demo")
    assert again.inspect() == image.inspect() and again.summary() == image.summary()
    assert again.config.cmd == ["/bin/sh", "-c", "sleep 1"]


@pytest.mark.parametrize(
    ("reference", "changes", "data"),
    [
        ("UPPER", [], TREE),
        ("host", [], TREE),
        ("a@sha256:" + "0" * 64, [], TREE),
        ("demo", ["RUN true"], TREE),
        ("demo", [], b"no tar" * 1000),
        ("demo", [], TREE[:1500]),
        ("demo", [], archive([file("../x")])),
        ("demo", [], gzip.compress(TREE)[:-10]),
    ],
)
async def test_failures_leave_nothing(
    world: ImageWorld, reference: str, changes: list[str], data: bytes
) -> None:
    with pytest.raises(InvalidArgument):
        await world.images.import_(pieces(data), reference=reference, changes=changes)
    assert world.blobs() == world.layers() == set() and len(world.images) == 0


async def test_a_client_that_vanishes_leaves_nothing(world: ImageWorld) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield TREE[:1000]
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await world.images.import_(broken(), reference="demo")
    assert world.blobs() == world.layers() == set()


async def test_a_cancelled_import_leaves_nothing(world: ImageWorld) -> None:
    begun = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield TREE[:1000]
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(world.images.import_(stalled(), reference="demo"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.blobs() == world.layers() == set()


async def test_a_name_moves_to_the_newest_image(world: ImageWorld) -> None:
    first = await world.images.import_(pieces(TREE), reference="demo")
    second = await world.images.import_(pieces(TREE), reference="demo", message="other")
    assert world.images.resolve("demo") is second
    assert first.repo_tags == [] and world.images.resolve(first.id) is first
    world.reopen()
    assert world.images.resolve("demo").id == second.id


async def test_many_megabytes_pass_through_a_bounded_pipe(world: ImageWorld) -> None:
    data = archive([file("big", bytes(40 << 20)), file("after")])
    image = await world.images.import_(pieces(data, 1 << 20), reference="big")
    assert image.size == (40 << 20) + 1
