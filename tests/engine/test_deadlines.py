"""Deadlines on a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from engine.builders import make_container
from sampan.engine import boot_clock, deadlines
from sampan.engine.boot_clock import Deadline
from sampan.engine.container import Container
from sampan.engine.deadlines import Deadlines
from sampan.errors import RuntimeFailure

HOUR = 3600 * 1_000_000_000


class Clock:
    """CLOCK_BOOTTIME and the wall clock, in ns; the deadlines' timer strikes when `strike` says so."""

    def __init__(self) -> None:
        self.boot_ns = 10 * HOUR
        self.unix_ns = 1_700_000_000 * 1_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(boot_clock, "now_ns", lambda: clock.boot_ns)
    monkeypatch.setattr(boot_clock, "boot", lambda: "this boot")
    monkeypatch.setattr("sampan.engine.boot_clock.time.time_ns", lambda: clock.unix_ns)
    monkeypatch.setattr(deadlines, "LONGEST_SLEEP_S", 0.005)
    return clock


def with_deadline(identity: str, deadline: Deadline) -> Container:
    return make_container(identity, deadline=deadline)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


def test_within_a_boot_the_wall_clock_does_not_count(clock: Clock) -> None:
    deadline = boot_clock.after(HOUR)
    for jump in (-50 * HOUR, 50 * HOUR):
        clock.unix_ns += jump
        assert boot_clock.due_ns(deadline) == 11 * HOUR


def test_after_a_reboot_it_does_within_bounds(clock: Clock) -> None:
    deadline = Deadline(boot="another", boot_ns=99, unix_ns=clock.unix_ns + HOUR, span_ns=2 * HOUR)
    assert boot_clock.due_ns(deadline) == 11 * HOUR
    clock.unix_ns -= 1000 * HOUR  # set back: no more than the whole span is left
    assert boot_clock.due_ns(deadline) == 12 * HOUR
    clock.unix_ns += 2000 * HOUR
    assert boot_clock.due_ns(deadline) < clock.boot_ns


async def test_due_ones_end_in_their_order(clock: Clock) -> None:
    ended: list[str] = []

    async def expire(container: Container) -> None:
        ended.append(container.id[:1])

    kept = Deadlines(expire)
    first, second, third, never = (
        with_deadline(letter, boot_clock.after(hours * HOUR))
        for letter, hours in (("a", 1), ("b", 2), ("c", 3), ("d", 4))
    )
    kept.open([third, first, second, never, make_container("e")])
    clock.boot_ns += HOUR
    await until(lambda: ended == ["a"])
    kept.forget(never)
    second.record.deadline = boot_clock.after(4 * HOUR)  # a client gave it more time
    kept.watch(second)
    clock.boot_ns += 2 * HOUR
    await until(lambda: ended == ["a", "c"])
    third.record.deadline = None
    clock.boot_ns += 20 * HOUR
    await until(lambda: ended == ["a", "c", "b"])
    await kept.close()


async def test_what_fails_is_tried_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "AGAIN_S", 60.0)
    attempts: list[int] = []

    async def expire(_: Container) -> None:
        attempts.append(clock.boot_ns)
        if len(attempts) == 1:
            raise RuntimeFailure("kill", "it does not end")

    kept = Deadlines(expire)
    kept.watch(with_deadline("a", boot_clock.after(0)))
    await until(lambda: len(attempts) == 1)
    clock.boot_ns += HOUR
    await until(lambda: len(attempts) == 2)
    await kept.close()
