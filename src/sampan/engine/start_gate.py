"""How many containers start at once: some for each processor.

More at once start no sooner, all together; they only take the processors from each other, from running
containers and from the daemon, whose clients then wait. A start has its place for a short time only: one that
waits for something else than a processor (a hook, a volume of another machine) holds nobody up for longer.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from types import TracebackType

# For each processor: a start works in two processes, and waits between them.
PLACES_EACH = 2
# So long a start keeps others out; ten times what one takes on a quiet machine.
LONGEST_S = 0.2


class StartGate:
    """Who comes first goes first. Used from one event loop, as `async with gate:`."""

    def __init__(self, places: int = 0, longest_s: float = LONGEST_S) -> None:
        """`places`: 0 for what suits this machine."""
        self._free = places or PLACES_EACH * len(os.sched_getaffinity(0))
        self._longest_s = longest_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held: dict[asyncio.Task[object] | None, asyncio.TimerHandle] = {}

    async def __aenter__(self) -> None:
        if self._free > 0:
            self._free -= 1
        else:
            await self._turn()
        task = asyncio.current_task()
        self._held[task] = asyncio.get_running_loop().call_later(self._longest_s, self._leave, task)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(asyncio.current_task())

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            else:
                self._give_on()  # it was given in the same moment
            raise

    def _leave(self, task: asyncio.Task[object] | None) -> None:
        """Give a place on; once, by whoever comes first: the start, or its time."""
        if (timer := self._held.pop(task, None)) is not None:
            timer.cancel()
            self._give_on()

    def _give_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
