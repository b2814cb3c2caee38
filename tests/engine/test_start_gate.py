"""Few start at once, in order, and one that hangs holds nobody up for long."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from sampan.engine.start_gate import StartGate

LONG_S = 3600.0


class Starts:
    """Starts that are through the gate until they are let go."""

    def __init__(self, gate: StartGate) -> None:
        self.gate = gate
        self.inside: list[int] = []
        self.came: list[int] = []
        self.leave: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def begin(self, *numbers: int) -> None:
        for number in numbers:
            self.leave[number] = asyncio.Event()
            self.tasks[number] = asyncio.create_task(self._one(number))
        await self.settle()

    async def _one(self, number: int) -> None:
        async with self.gate:
            self.came.append(number)
            self.inside.append(number)
            try:
                await self.leave[number].wait()
            finally:
                self.inside.remove(number)

    async def end(self, number: int) -> None:
        self.leave[number].set()
        await self.tasks[number]
        await self.settle()

    async def cancel(self, number: int) -> None:
        self.tasks[number].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.tasks[number]
        await self.settle()

    @staticmethod
    async def settle() -> None:
        """Everything that can go on without time passing has."""
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_place_is_for_one_and_the_first_gets_it() -> None:
    starts = Starts(StartGate(2, LONG_S))
    await starts.begin(1, 2, 3, 4)
    assert starts.inside == [1, 2]
    await starts.end(2)
    assert starts.inside == [1, 3]
    await starts.begin(5)
    await starts.end(1)
    await starts.end(3)
    assert starts.inside == [4, 5]
    await starts.end(4)
    await starts.end(5)
    assert starts.came == [1, 2, 3, 4, 5]


async def test_a_place_that_was_held_too_long_is_given_on_once() -> None:
    starts = Starts(StartGate(1, 0.01))
    await starts.begin(1, 2, 3)
    async with asyncio.timeout(30):
        while len(starts.inside) < 3:  # their time goes by
            await asyncio.sleep(0.005)
    assert starts.came == [1, 2, 3]
    for number in (1, 2, 3):
        await starts.end(number)
    slow = Starts(starts.gate)
    starts.gate._longest_s = LONG_S
    await slow.begin(4, 5)
    assert slow.inside == [4], "a place was given back twice"
    await slow.end(4)
    await slow.end(5)


async def test_who_is_cancelled_leaves_his_place_to_the_next() -> None:
    starts = Starts(StartGate(1, LONG_S))
    await starts.begin(1, 2, 3, 4)
    await starts.cancel(2)
    await starts.cancel(1)
    assert starts.inside == [3]
    # The place and the cancellation in the same moment.
    starts.leave[3].set()
    while starts.inside == [3]:
        await asyncio.sleep(0)
    await starts.cancel(4)
    await starts.begin(5)
    assert starts.inside == [5]
    await starts.end(5)


async def test_a_failure_gives_the_place_back() -> None:
    gate = StartGate(1, LONG_S)
    for _ in range(3):
        with pytest.raises(ValueError, match="start"):
            async with gate:
                raise ValueError("start")
