"""Five hundred images of ten layers: what an engine that has them answers in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.images.making.layers import StoredLayer, store_image, store_layer
from sampan.oci.image_config import ImageConfig, RootFS
from sampan.oci.reference import parse_reference
from support.engines import SampanEngine
from support.images import ImageWorld
from support.tars import archive, file, reader

pytestmark = pytest.mark.root

IMAGES = 500
SHARED = 5  # layers that all have
OWN = 5  # and five that ten images share
LIMIT_MS = 50


def fill(root: Path) -> None:
    """Make a data root with these images."""
    world = ImageWorld(root)
    try:
        asyncio.run(_register_all(world))
    finally:
        world.close()


async def _register_all(world: ImageWorld) -> None:
    below = _stack(world, [], [f"shared{number}" for number in range(SHARED)])
    stack = below
    with world.images._register.hold("fill"):
        for number in range(IMAGES):
            if number % 10 == 0:
                stack = _stack(world, below, [f"own{number}-{own}" for own in range(OWN)])
            loaded = store_image(
                ImageConfig(
                    architecture="amd64",
                    os="linux",
                    author=str(number),
                    rootfs=RootFS(diff_ids=[stored.layer.diff_id for stored in stack]),
                ),
                [stored.blob for stored in stack],
                0,
                content=world.content,
                references=(parse_reference(f"many:{number}"),),
            )
            world.images._register.register(loaded, None)


def _stack(world: ImageWorld, below: list[StoredLayer], names: list[str]) -> list[StoredLayer]:
    stack = list(below)
    for name in names:
        data = archive([file(name, name.encode() * 100)])
        parent = stack[-1].layer.chain if stack else None
        stack.append(
            store_layer(reader(data), parent, content=world.content, snapshots=world.snapshots)
        )
    return stack


@pytest.fixture(scope="module")
def engine(session_directory: str, session_token: str) -> Iterator[SampanEngine]:
    running = SampanEngine(f"{session_directory}/many", session_token + "m")
    try:
        fill(Path(running.data_root))
        running.start()
        yield running
    finally:
        running.stop()


def milliseconds(work: Callable[[], object], times: int = 7) -> float:
    """The fastest of some, as others use the machine, too."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1000)
    return min(taken)


def test_system_df(engine: SampanEngine) -> None:
    report = engine.get("/v1.55/system/df", verbose=1).json
    assert report["ImageUsage"]["TotalCount"] == IMAGES
    assert report["ImageUsage"]["TotalSize"] > 0
    assert milliseconds(lambda: engine.get("/v1.55/system/df")) < LIMIT_MS
    assert milliseconds(lambda: engine.get("/v1.51/system/df")) < LIMIT_MS


def test_one_change(engine: SampanEngine) -> None:
    """A tag or a removal does not look at all images and blobs."""
    numbers = iter(range(100))

    def tag() -> None:
        engine.post("/images/many:499/tag", repo="tagged", tag=str(next(numbers)))

    def remove() -> None:
        engine.delete(f"/images/many:{next(numbers)}")

    assert milliseconds(tag) < LIMIT_MS / 2
    assert milliseconds(remove) < LIMIT_MS / 2


def test_why(engine: SampanEngine) -> None:
    layer = engine.get("/images/many:300/json").json["RootFS"]["Layers"][0]
    found = engine.get("/system/df/why", object=layer).json["Objects"]
    assert [answer["Kind"] for answer in found] == ["layer"]
    assert len(found[0]["HeldBy"]) > IMAGES - 50
    assert milliseconds(lambda: engine.get("/system/df/why", object=layer)) < LIMIT_MS
