"""How many may do something at once, by a limit that can be changed while they do."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Slots:
    """Places taken in the order of asking. On the event loop."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def taken(self, waiting: Callable[[], None]) -> AsyncIterator[None]:
        """Hold a place; `waiting` is called when there is none at once."""
        if self._taken >= max(1, self._limit()) or self._waiting:
            waiting()
            await self._turn()
        else:
            self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._pass_on()

    async def _turn(self) -> None:
        """Wait for a place, which is counted as taken by who passes it on."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():  # the place came together with the cancellation
                self._taken -= 1
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting and self._taken < max(1, self._limit()):
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
