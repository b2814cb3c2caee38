"""What containers wrote is walked again only when it can have changed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, cast

from engine.builders import make_record
from sampan.engine.container import Container, Status
from sampan.engine.sizes import WrittenSizes
from sampan.errors import NotFound
from sampan.snapshots.overlay import Snapshotter


class Walks:
    """Snapshots that count who asks for a size."""

    def __init__(self) -> None:
        self.walked: list[str] = []

    def usage_bytes(self, key: str) -> int:
        self.walked.append(key)
        if key == "gone":
            raise NotFound("snapshot gone does not exist")
        return 7


def container(identity: str) -> Container:
    record = make_record()
    record.id = identity
    return Container(record, "/nowhere")


async def test_a_container_at_rest_is_walked_once() -> None:
    walks = Walks()
    sizes = WrittenSizes(cast(Snapshotter, cast(Any, walks)))
    one, running = container("one"), container("running")
    running.state.status = Status.RUNNING
    assert await sizes.of([one, running]) == {"one": 7, "running": 7}
    assert await sizes.of([one, running]) == {"one": 7, "running": 7}
    assert walks.walked == ["one", "running", "running"]
    one.state.started_ns, one.state.finished_ns = 5, 6  # it ran meanwhile
    await sizes.of([one])
    await sizes.of([one])
    assert walks.walked[3:] == ["one"]
    sizes.forget(one)
    async with one.lock:  # it is being started: what is seen now is not kept
        await sizes.of([one])
        await sizes.of([one])
    assert walks.walked[4:] == ["one", "one"]
    assert await sizes.of([container("gone")]) == {"gone": 0}


def test_it_is_forgotten_with_the_container() -> None:
    walks = Walks()
    sizes = WrittenSizes(cast(Snapshotter, cast(Any, walks)))
    one = container("one")
    asyncio.run(sizes.of([one]))
    assert len(sizes._known) == 1
    del one
    gc.collect()
    assert len(sizes._known) == 0
