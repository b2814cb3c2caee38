"""Containers that may live for so long: when each is due, and its end.

One timer for all. What is due is handed to `expire`, a few at a time, and again after a pause when that
failed. Deadlines are in the containers' rows: a new daemon keeps them, and ends at once what fell due while
there was none.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from sampan.engine import boot_clock
from sampan.errors import SampanError

if TYPE_CHECKING:
    from sampan.engine.container import Container

log = logging.getLogger(__name__)

AT_ONCE = 8
# The loop's clock stands still while the machine sleeps, so it is not trusted for longer.
LONGEST_SLEEP_S = 30.0
AGAIN_S = 30.0


class Deadlines:
    """`expire(container)` ends a container; it may find that it is gone, or due later by now."""

    def __init__(self, expire: Callable[[Container], Awaitable[None]]) -> None:
        self._expire = expire
        self._due: dict[str, int] = {}
        self._queue: list[tuple[int, str]] = []
        self._containers: dict[str, Container] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._closed = False

    def open(self, containers: Iterable[Container]) -> None:
        """Keep the deadlines of all these."""
        for container in containers:
            self.watch(container)

    def watch(self, container: Container) -> None:
        """Keep the container's deadline, which replaces an earlier one; without one, forget it."""
        deadline = container.record.deadline
        if deadline is None:
            self.forget(container)
        else:
            self._plan(container, boot_clock.due_ns(deadline))

    def forget(self, container: Container) -> None:
        """The container is gone."""
        if self._due.pop(container.id, None) is not None:
            del self._containers[container.id]

    async def close(self) -> None:
        """End nothing more; the next engine goes on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _plan(self, container: Container, due_ns: int) -> None:
        self._due[container.id] = due_ns
        self._containers[container.id] = container
        heapq.heappush(self._queue, (due_ns, container.id))
        self._wind()

    def _wind(self) -> None:
        """Set the timer for what is due next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self._due.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)  # replaced or forgotten
        if self._queue and not self._closed:
            left_s = (self._queue[0][0] - boot_clock.now_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(
                min(max(left_s, 0.0), LONGEST_SLEEP_S), self._strike, context=contextvars.Context()
            )

    def _strike(self) -> None:
        now_ns = boot_clock.now_ns()
        while self._queue and self._queue[0][0] <= now_ns:
            due_ns, identity = heapq.heappop(self._queue)
            if self._due.get(identity) == due_ns:
                self._begin(self._containers[identity])
        self._wind()

    def _begin(self, container: Container) -> None:
        self.forget(container)
        task = asyncio.get_running_loop().create_task(self._end(container))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, container: Container) -> None:
        async with self._places:
            try:
                await self._expire(container)
            except (SampanError, OSError) as failure:
                log.error("container %s outlives its time: %s", container.id, failure)
                if container.id not in self._due:
                    self._plan(container, boot_clock.now_ns() + int(AGAIN_S * 1e9))
