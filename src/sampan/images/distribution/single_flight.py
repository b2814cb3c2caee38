"""Work that several wait for is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Runs at most one piece of work per key; who comes meanwhile gets its result too.

    The work goes on when one who waits is cancelled, and ends when nobody waits any more.
    """

    def __init__(self) -> None:
        self._running: dict[Key, asyncio.Task[Value]] = {}
        self._waiting: dict[Key, int] = {}

    async def run(self, key: Key, work: Callable[[], Awaitable[Value]]) -> Value:
        """The result of `work`, or of what is under way for `key`; its failure is everybody's."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(_awaited(work))
            task.add_done_callback(lambda done: self._ended(key, done))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._left(key, task)

    def _left(self, key: Key, task: asyncio.Task[Value]) -> None:
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
            if self._running.get(key) is task and not task.done():
                del self._running[key]
                task.cancel()

    def _ended(self, key: Key, task: asyncio.Task[Value]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # looked at: whoever waited has it already


async def _awaited(work: Callable[[], Awaitable[Value]]) -> Value:
    return await work()
