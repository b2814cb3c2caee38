"""What happened, told to whoever listens, once and in order, over restarts of the daemon too.

An event gets the next number, is written to the log on disk and then told: whoever heard of it can go
on behind it, with this daemon or the next one. The last events are kept in memory, too; a listener that
falls behind them reads on from the disk, so that a slow one costs no memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from sampan.engine import requester
from sampan.engine.filters import event_matches
from sampan.engine.requester import Requester
from sampan.errors import InvalidArgument, NotFound
from sampan.state.events import EventLog, Limits, Place

log = logging.getLogger(__name__)

# How many events are kept in memory. As many wait for a full disk to have room again.
KEPT_EVENTS = 4096
# A clock that was set back by more gives the times of events; by less, they go on rising.
CLOCK_STEP_NS = 1_000_000_000
ID_PREFIX = "e"
_LONGEST_NUMBER = 18


class Event(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One event in Docker's words: type `container`, action `start`, the actor and its attributes.

    `number` counts all events of a data root; `by` is who asked for it, None: nobody did.
    """

    number: int
    time_ns: int
    type: str
    action: str
    id: str
    attributes: dict[str, str]
    scope: str = "local"
    by: Requester | None = None

    @property
    def cursor(self) -> str:
        """The event's ID, with which a stream goes on behind it."""
        return f"{ID_PREFIX}{self.number}"


_decode = msgspec.json.Decoder(Event).decode


def number_of(cursor: str) -> int | None:
    """The number of an event's ID; None for what is none (a time, for instance)."""
    digits = cursor.removeprefix(ID_PREFIX)
    if digits == cursor or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if len(digits) <= _LONGEST_NUMBER else None


class _Former(NamedTuple):
    """What the daemon before this one told last: of each container the last of start and die, all that it
    told of containers, and from when on that is all."""

    runs: dict[str, str]
    told: frozenset[tuple[str, str]]
    since_ns: int


class EventBus:
    """Numbers events, writes them down, and tells all listeners; used from the event loop.

    Without a log on disk, only what is in memory is there.
    """

    def __init__(self, disk: EventLog | None = None) -> None:
        self._disk = disk
        self._last = disk.last if disk else 0
        self._last_ns = disk.latest_ns if disk else 0
        # No event that is not in memory is younger than this.
        self._forgotten_ns = self._last_ns
        self._kept: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._unwritten: deque[tuple[Event, bytes]] = deque(maxlen=KEPT_EVENTS)
        self._listeners: set[asyncio.Event] = set()
        self._closed = False
        self._opened_at = self._last
        self._former: _Former | None = None

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self._last

    def emit(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> Event:
        """Write an event down and tell all listeners.

        Times are strictly rising, unless the clock was set back.
        """
        now_ns = time.time_ns()
        if self._last_ns - CLOCK_STEP_NS < now_ns <= self._last_ns:
            now_ns = self._last_ns + 1
        self._last_ns = now_ns
        self._last += 1
        event = Event(
            number=self._last,
            time_ns=now_ns,
            type=type,
            action=action,
            id=id,
            attributes=dict(attributes),
            by=requester.current.get(),
        )
        if self._disk is not None:
            self._write(self._disk, event)
        if len(self._kept) == KEPT_EVENTS:
            self._forgotten_ns = max(self._forgotten_ns, self._kept[0].time_ns)
        self._kept.append(event)
        for wake in self._listeners:
            wake.set()
        return event

    def close(self) -> None:
        """End every listener's stream."""
        self._closed = True
        for wake in self._listeners:
            wake.set()
        if self._disk is not None:
            self.tidy()
            self._disk.close()

    # On disk

    def tidy(self) -> None:
        """Write what a full disk had no room for, and let go of what is too old."""
        if self._disk is not None:
            self._flush(self._disk)
            self._disk.prune()

    def set_limits(self, limits: Limits) -> None:
        """Keep so much on disk; what is over goes with the next `tidy`."""
        if self._disk is not None:
            self._disk.limits = limits

    def _write(self, disk: EventLog, event: Event) -> None:
        line = msgspec.json.encode(event)
        if not self._unwritten:
            try:
                disk.append(event.number, event.time_ns, line)
                return
            except OSError as error:
                log.error(
                    "events cannot be written, the last %d are kept in memory: %s",
                    KEPT_EVENTS,
                    error,
                )
        self._unwritten.append((event, line))
        self._flush(disk)

    def _flush(self, disk: EventLog) -> None:
        if not self._unwritten:
            return
        try:
            while self._unwritten:
                event, line = self._unwritten[0]
                disk.append(event.number, event.time_ns, line)
                self._unwritten.popleft()
        except OSError:
            return
        log.info("events are written again")

    def last_told(self, id: str) -> str:
        """Whether a former daemon told last of a container's start or of its end (`start`, `die`), of late;
        empty for neither.

        Reads what it wrote last from the disk, at the first call; `forget_former` lets go of that.
        """
        return self._from_former().runs.get(id, "")

    def was_told(self, id: str, action: str, at_ns: int | None = None) -> bool:
        """Whether a former daemon told this of a container, of late. What would have been told at `at_ns`
        is taken for told when that is longer ago than what this reads."""
        former = self._from_former()
        return (id, action) in former.told or (at_ns is not None and at_ns < former.since_ns)

    def forget_former(self) -> None:
        """Nobody asks for what a former daemon told any more."""
        self._former = _Former({}, frozenset(), 0)

    def _from_former(self) -> _Former:
        if self._former is None:
            events = list(self._of_former())
            ours = [event for event in events if event.type == "container"]
            runs = {e.id: e.action for e in ours if e.action in ("start", "die")}
            told = frozenset((event.id, event.action) for event in ours)
            is_all = bool(events) and events[0].number == 1
            since_ns = 0 if is_all else events[0].time_ns if events else time.time_ns()
            self._former = _Former(runs, told, since_ns)
        return self._former

    def _of_former(self) -> Iterator[Event]:
        """The last events of the daemon before this one."""
        if self._disk is None:
            return
        place: Place | None = self._disk.place_of(max(0, self._opened_at - KEPT_EVENTS))
        while place is not None:
            lines, place = self._disk.read(place)
            for line in lines:
                yield from (e for e in _decoded(line, 0) if e.number <= self._opened_at)

    # Listening

    def check(self, after: int) -> None:
        """Whether a stream can go on behind the event with this number, with none missing.

        Raises:
            NotFound: later ones have been let go of.
            InvalidArgument: there has never been such an event.
        """
        oldest = self._oldest
        if after < oldest - 1:
            raise NotFound(
                f"events behind {ID_PREFIX}{after} are no longer kept: the oldest is "
                f"{ID_PREFIX}{oldest}",
                hint=f"list what there is, and go on with {ID_PREFIX}{self._last}",
            )
        if after > self._last:
            raise InvalidArgument(
                f"no such event: {ID_PREFIX}{after}; the last is {ID_PREFIX}{self._last}",
                hint="is the ID another engine's?",
            )

    async def subscribe(
        self,
        *,
        after: int | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> AsyncIterator[Event]:
        """Events that match: past ones from `since_ns` on, or those behind the number `after`
        first, then as they come up to `until_ns`.

        Without either only new ones. Ends at `until_ns`, when the bus closes, or when the reader
        fell so far behind that what it needs next is no longer kept. Closing the iterator
        unsubscribes.

        Raises:
            NotFound, InvalidArgument: see `check`.
        """
        if after is not None:
            self.check(after)
        newest = self._last
        position = self._before(since_ns) if after is None else after
        wake = asyncio.Event()
        self._listeners.add(wake)
        try:
            async for event in self._behind(position, since_ns or 0, until_ns, wake, after is None):
                if event.number <= newest:
                    if since_ns is not None and event.time_ns < since_ns:
                        continue
                    if until_ns is not None and event.time_ns > until_ns:
                        continue
                elif until_ns is not None and event.time_ns > until_ns:
                    return
                if event_matches(event, filters or {}):
                    yield event
        finally:
            self._listeners.discard(wake)

    @property
    def _first_kept(self) -> int:
        """The number of the oldest event in memory; of the next one where there is none."""
        return self._last + 1 - len(self._kept)

    @property
    def _oldest(self) -> int:
        """The number from which on there are all."""
        return self._disk.oldest if self._disk is not None else self._first_kept

    def _before(self, since_ns: int | None) -> int:
        """A number behind which all events from `since_ns` on are; None: new ones only."""
        if since_ns is None:
            return self._last
        return self._first_kept - 1 if since_ns > self._forgotten_ns else 0

    async def _behind(
        self,
        position: int,
        since_ns: int,
        until_ns: int | None,
        wake: asyncio.Event,
        may_begin_later: bool,
    ) -> AsyncIterator[Event]:
        """All events behind a number, without end but for `until_ns`, the close, and a gap."""
        place: Place | None = None
        while True:
            if position < self._first_kept - 1:
                if self._oldest > position + 1:
                    if not may_begin_later:
                        log.info("a listener fell behind all events that are kept")
                        return
                    position = self._oldest - 1
                    continue
                reached = self._first_kept - 1
                events, place = await self._from_disk(position, since_ns, place)
                for event in events:
                    position = event.number
                    yield event
                if place is None:
                    position = max(position, reached)
            elif position < self._last:
                place = None
                event = self._kept[position - self._last]
                position = event.number
                yield event
            elif not await self._wait(wake, until_ns):
                return
            may_begin_later = may_begin_later and place is not None

    async def _from_disk(
        self, position: int, since_ns: int, place: Place | None
    ) -> tuple[list[Event], Place | None]:
        disk = self._disk
        if disk is None:
            return [], None

        def read() -> tuple[list[Event], Place | None]:
            lines, behind = disk.read(place or disk.place_of(position, since_ns))
            return [event for line in lines for event in _decoded(line, position)], behind

        return await asyncio.to_thread(read)

    async def _wait(self, wake: asyncio.Event, until_ns: int | None) -> bool:
        """Wait for more events; False when there will be none."""
        if self._closed:
            return False
        wake.clear()
        if until_ns is None:
            await wake.wait()
            return True
        try:
            async with asyncio.timeout(max(0.0, (until_ns - time.time_ns()) / 1e9)):
                await wake.wait()
        except TimeoutError:
            return False
        return True


def _decoded(line: bytes, position: int) -> Iterator[Event]:
    """The event of a line, if it is behind a number, and whole: a crash of the machine can leave
    others."""
    try:
        event = _decode(line)
    except msgspec.DecodeError:
        return
    if event.number > position:
        yield event
