"""The event bus: past ones, new ones, the end, and readers that fall behind."""

from __future__ import annotations

import asyncio
import time

from sampan.engine import events
from sampan.engine.events import EventBus


async def collect(bus: EventBus, count: int, **arguments: object) -> list[str]:
    found = []
    async for event in bus.subscribe(**arguments):  # type: ignore[arg-type]
        found.append(event.action)
        if len(found) == count:
            break
    return found


async def test_past_and_new() -> None:
    """`since` begins with what was; then comes what happens, nothing twice."""
    bus = EventBus()
    first = bus.emit("container", "create", "a", {})
    bus.emit("container", "start", "a", {})
    reader = asyncio.create_task(collect(bus, 2, since_ns=first.time_ns + 1))
    await asyncio.sleep(0)
    bus.emit("container", "die", "a", {})
    assert await reader == ["start", "die"]
    await asyncio.sleep(0)


async def test_until_in_the_past_ends() -> None:
    """With an end that has passed the stream ends after what was."""
    bus = EventBus()
    bus.emit("container", "create", "a", {})
    assert await collect(bus, 9, since_ns=0, until_ns=time.time_ns()) == ["create"]
    assert bus.listeners == 0


async def test_filtered() -> None:
    """Only what matches comes through."""
    bus = EventBus()
    bus.emit("image", "load", "a", {})
    bus.emit("container", "create", "a", {})
    until = time.time_ns() + 1000
    assert await collect(bus, 9, since_ns=0, until_ns=until, filters={"type": ["image"]}) == [
        "load"
    ]


async def test_close_ends_streams() -> None:
    """Closing the bus ends every listener."""
    bus = EventBus()
    reader = asyncio.create_task(collect(bus, 9))
    await asyncio.sleep(0)
    bus.close()
    assert await reader == []


async def test_slow_reader_is_hung_up_on(monkeypatch: object) -> None:
    """A reader that takes nothing does not fill the memory: its stream ends."""
    bus = EventBus()
    stream = bus.subscribe(since_ns=0)
    bus.emit("container", "first", "a", {})
    assert (await anext(stream)).action == "first"
    for _ in range(events.QUEUE_LENGTH + 10):
        bus.emit("container", "more", "a", {})
    assert bus.listeners == 0
    left = [event async for event in stream]
    assert len(left) < events.QUEUE_LENGTH


def test_times_rise() -> None:
    """No two events have one time, so a client can go on after the last it saw."""
    bus = EventBus()
    times = [bus.emit("container", "x", "a", {}).time_ns for _ in range(100)]
    assert sorted(set(times)) == times
