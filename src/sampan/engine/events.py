"""What happened, told to whoever listens.

The last events are kept in memory for `--since`; a listener has a bounded queue, and one that
does not keep up is hung up on instead of filling the daemon's memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from sampan.engine.filters import event_matches

# How many past events `since` can reach back to; and how far a listener may fall behind.
KEPT_EVENTS = 4096
QUEUE_LENGTH = 16384


class Event(msgspec.Struct, kw_only=True, frozen=True):
    """One event in Docker's words: type `container`, action `start`, the actor and its attributes."""

    type: str
    action: str
    id: str
    attributes: dict[str, str]
    time_ns: int
    scope: str = "local"


class EventBus:
    """Sends each event to all listeners, in order."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._last_ns = 0

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def emit(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> Event:
        """Tell all listeners. Times are strictly rising, so that a client can go on after one."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        event = Event(
            type=type, action=action, id=id, attributes=dict(attributes), time_ns=self._last_ns
        )
        self._kept.append(event)
        for queue in list(self._listeners):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._hang_up(queue)
        return event

    def close(self) -> None:
        """End every listener's stream."""
        for queue in list(self._listeners):
            self._hang_up(queue)

    async def subscribe(
        self,
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> AsyncIterator[Event]:
        """Events that match, past ones from `since_ns` first, then as they come up to `until_ns`.

        Without `since_ns` only new ones. Ends at `until_ns`, when the bus closes, or when the
        reader fell too far behind. Closing the iterator unsubscribes.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE_LENGTH)
        past = [] if since_ns is None else [e for e in self._kept if e.time_ns >= since_ns]
        self._listeners.add(queue)
        try:
            for event in past:
                if (until_ns is None or event.time_ns <= until_ns) and event_matches(
                    event, filters or {}
                ):
                    yield event
            while (event_or_end := await self._next(queue, until_ns)) is not None:
                if event_matches(event_or_end, filters or {}):
                    yield event_or_end
        finally:
            self._listeners.discard(queue)

    async def _next(self, queue: asyncio.Queue[Event | None], until_ns: int | None) -> Event | None:
        if until_ns is None:
            return await queue.get()
        try:
            async with asyncio.timeout(max(0.0, (until_ns - time.time_ns()) / 1e9)):
                event = await queue.get()
        except TimeoutError:
            return None
        return event if event is not None and event.time_ns <= until_ns else None

    def _hang_up(self, queue: asyncio.Queue[Event | None]) -> None:
        self._listeners.discard(queue)
        while True:
            try:
                queue.put_nowait(None)
                return
            except asyncio.QueueFull:
                queue.get_nowait()
