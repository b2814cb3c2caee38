"""The event bus: past ones, new ones, the end, and readers that fall behind."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path

import pytest

from sampan.engine import events, requester
from sampan.engine.events import EventBus
from sampan.engine.requester import Requester, by_nobody
from sampan.errors import InvalidArgument, NotFound
from sampan.state.events import EventLog, Limits


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


async def test_slow_reader_is_hung_up_on() -> None:
    """Without a log on disk, a reader that falls behind what is kept is ended, not given a gap."""
    bus = EventBus()
    bus.emit("container", "first", "a", {})
    stream = bus.subscribe(since_ns=0)
    assert (await anext(stream)).action == "first"
    for _ in range(events.KEPT_EVENTS + 10):
        bus.emit("container", "more", "a", {})
    assert [event async for event in stream] == []
    assert bus.listeners == 0


def test_times_rise() -> None:
    """No two events have one time, so a client can go on after the last it saw."""
    bus = EventBus()
    times = [bus.emit("container", "x", "a", {}).time_ns for _ in range(100)]
    assert sorted(set(times)) == times


def test_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """By little: times rise on. By more: events have the clock's time, and IDs go on."""
    bus = EventBus()
    now = time.time_ns()
    moments = iter((now, now - 1000, now - 3600 * 10**9))
    monkeypatch.setattr("sampan.engine.events.time.time_ns", lambda: next(moments))
    seen = [bus.emit("container", "x", "a", {}) for _ in range(3)]
    assert [event.time_ns - now for event in seen] == [0, 1, -3600 * 10**9]
    assert [event.cursor for event in seen] == ["e1", "e2", "e3"]


# Over restarts


async def read_until_now(bus: EventBus, **arguments: object) -> list[int]:
    stream = bus.subscribe(until_ns=time.time_ns() + 10**9, **arguments)  # type: ignore[arg-type]
    bus.emit("end", "end", "end", {})
    found = []
    async for event in stream:
        if event.type == "end" and event.number == bus.last:
            break
        found.append(event.number)
    await stream.aclose()  # type: ignore[attr-defined]
    return found


async def test_the_next_daemon_goes_on(tmp_path: Path) -> None:
    """Past events, their numbers and times are there for the next bus, which was not told of a close."""
    path = f"{tmp_path}/events"
    first = EventBus(EventLog(path))
    told = [first.emit("container", "start", "a", {"name": "x"}) for _ in range(5)]
    second = EventBus(EventLog(path))
    later = second.emit("container", "die", "a", {})
    assert later.number == 6
    assert later.time_ns > told[-1].time_ns
    assert await read_until_now(second, since_ns=0) == [1, 2, 3, 4, 5, 6]
    assert await read_until_now(second, after=3) == [4, 5, 6, 7]
    assert await read_until_now(second, since_ns=told[3].time_ns) == [4, 5, 6, 7, 8]
    assert await read_until_now(second) == []


async def test_each_event_once(tmp_path: Path) -> None:
    """A client that reads a bit, goes, and comes back with its last ID sees each event once, whoever
    restarts meanwhile, from segments and from memory."""
    path = f"{tmp_path}/events"
    limits = Limits(size_bytes=256 << 10)
    bus = EventBus(EventLog(path, limits))
    seen: list[int] = []
    for turn in range(12):
        if turn % 3 == 2:
            bus = EventBus(EventLog(path, limits))
        for _ in range(100):
            bus.emit("container", "start", "a" * 64, {"name": "x"})
        stream = bus.subscribe(after=seen[-1] if seen else 0)
        for _ in range(70 if turn < 11 else bus.last - seen[-1]):
            seen.append((await anext(stream)).number)
        await stream.aclose()  # type: ignore[attr-defined]
    assert seen == list(range(1, 1201))
    assert len(os.listdir(path)) > 3


async def test_a_slow_reader_reads_on_from_the_disk(tmp_path: Path) -> None:
    bus = EventBus(EventLog(f"{tmp_path}/events"))
    bus.emit("container", "first", "a", {})
    stream = bus.subscribe(after=0)
    assert (await anext(stream)).number == 1
    for _ in range(events.KEPT_EVENTS + 500):
        bus.emit("container", "more", "a", {})
    found = [(await anext(stream)).number for _ in range(bus.last - 1)]
    assert found == list(range(2, bus.last + 1))
    await stream.aclose()  # type: ignore[attr-defined]


async def test_what_is_no_longer_kept(tmp_path: Path) -> None:
    """Behind an event that was let go of there is no going on, and the answer says so."""
    bus = EventBus(EventLog(f"{tmp_path}/events", Limits(size_bytes=64 << 10)))
    for _ in range(2000):
        bus.emit("container", "start", "a" * 64, {"name": "x"})
    assert sum(file.stat().st_size for file in (tmp_path / "events").iterdir()) < 80 << 10
    with pytest.raises(NotFound, match=r"behind e5 are no longer kept: the oldest is e\d+"):
        await anext(bus.subscribe(after=5))
    with pytest.raises(InvalidArgument, match="no such event: e2001; the last is e2000"):
        await anext(bus.subscribe(after=2001))
    kept = await read_until_now(bus, since_ns=0)
    assert kept == list(range(kept[0], 2001))


async def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events go on; what could not be written is written when there is room, in order."""
    path = f"{tmp_path}/events"
    log = EventLog(path)
    bus = EventBus(log)
    bus.emit("container", "one", "a", {})
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: 3)
        bus.emit("container", "two", "a", {})
        bus.emit("container", "three", "a", {})
        assert await read_until_now(bus, after=0) == [1, 2, 3]
    assert EventLog(path).last == 1
    bus.tidy()
    assert EventLog(path).last == 4
    assert await read_until_now(EventBus(EventLog(path)), after=0) == [1, 2, 3, 4]


def test_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is no error of what happened."""
    bus = EventBus(EventLog(f"{tmp_path}/events"))

    def broken(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "write", broken)
    assert bus.emit("container", "one", "a", {}).number == 1


# Who asked


async def test_who_asked() -> None:
    """The request's client, in the tasks that the request starts too; not what runs by itself."""
    bus = EventBus()
    client = Requester(uid=1000, gid=1000, pid=77)

    async def request() -> None:
        requester.current.set(client)
        bus.emit("container", "create", "a", {})
        await asyncio.create_task(in_task())
        by_nobody(bus.emit, "container", "die", "a", {})

    async def in_task() -> None:
        bus.emit("container", "start", "a", {})

    await asyncio.create_task(request())
    found = [event.by async for event in bus.subscribe(since_ns=0, until_ns=time.time_ns())]
    assert found == [client, client, None]


def test_what_a_former_daemon_told_last(tmp_path: Path) -> None:
    """Of a start and an end, the one that came last; nothing of the daemon's own."""
    former = EventBus(EventLog(str(tmp_path)))
    for identity, actions in {"a": ("start", "die"), "b": ("die", "start", "kill"), "c": ("create",)}.items():  # fmt: skip
        for action in actions:
            former.emit("container", action, identity, {})
    former.close()
    bus = EventBus(EventLog(str(tmp_path)))
    bus.emit("container", "start", "a", {})
    assert [bus.last_told(identity) for identity in "abcd"] == ["die", "start", "", ""]
    bus.forget_former()
    assert bus.last_told("a") == ""
    bus.close()


def test_whether_a_former_daemon_told(tmp_path: Path) -> None:
    """Of what is longer ago than what is read, nobody can say that it was not told."""
    former = EventBus(EventLog(str(tmp_path)))
    first = former.emit("container", "create", "a", {})
    former.emit("network", "destroy", "b", {})
    former.close()
    bus = EventBus(EventLog(str(tmp_path)))
    assert bus.was_told("a", "create") and bus.was_told("a", "create", first.time_ns)
    assert not bus.was_told("b", "destroy")
    assert not bus.was_told("c", "create", first.time_ns)
    bus.emit("container", "create", "c", {})
    assert not bus.was_told("c", "create"), "it is this daemon's"
    bus.close()
    log = EventLog(str(tmp_path), Limits(size_bytes=64 << 10))
    full = EventBus(log)
    while log.oldest == 1:
        last = full.emit("image", "tag", "i", {})
        full.tidy()
    full.close()
    later = EventBus(EventLog(str(tmp_path)))
    assert not later.was_told("d", "create", last.time_ns)
    assert later.was_told("d", "create", first.time_ns)
    later.close()
    fresh = EventBus(EventLog(str(tmp_path / "none")))
    assert fresh.was_told("a", "create", first.time_ns), (
        "an older version told of it, and kept nothing"
    )
    fresh.close()
