"""The resolver's event loop: descriptors that become ready, and time that runs out."""

from __future__ import annotations

import select
import sys
from collections import deque
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS_TOLD = 20
READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Patience:
    """Things that are given the same time each, so that they run out in the order they came."""

    __slots__ = ("_queue", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()

    def begin(self, on_end: Callable[[], None]) -> None:
        """Call `on_end` when the time is over; it finds out by itself whether that still matters."""
        self._queue.append((monotonic() + self.seconds, on_end))

    def left(self) -> float | None:
        """Seconds until the first runs out; None without any."""
        return max(0.0, self._queue[0][0] - monotonic()) if self._queue else None

    def expire(self) -> None:
        now = monotonic()
        while self._queue and self._queue[0][0] <= now:
            self._queue.popleft()[1]()


class Loop:
    """Calls whoever waits for a descriptor; the urgent ones first."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._urgent: set[int] = set()
        self._patiences: list[Patience] = []
        self._soon: list[Callable[[], None]] = []
        self._faults = 0

    def soon(self, call: Callable[[], None]) -> None:
        """Call it when all that is ready now has been dealt with."""
        self._soon.append(call)

    def patience(self, seconds: float) -> Patience:
        made = Patience(seconds)
        self._patiences.append(made)
        return made

    def watch(
        self, fd: int, call: Callable[[], None], events: int = READ, *, urgent: bool = False
    ) -> None:
        """Call when the descriptor is ready, as often as it is."""
        self._epoll.register(fd, events)
        self._calls[fd] = call
        if urgent:
            self._urgent.add(fd)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """To be called before the descriptor is closed; nothing happens if it is not watched."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._urgent.discard(fd)

    def run_once(self) -> None:
        """Wait for something to happen and have it dealt with."""
        waits = [left for each in self._patiences if (left := each.left()) is not None]
        # select.epoll takes milliseconds and rounds up.
        ready = self._epoll.poll(min(waits) if waits else None)
        if self._urgent:
            ready.sort(key=lambda each: each[0] not in self._urgent)
        for fd, _ in ready:
            call = self._calls.get(fd)  # who was called before may have closed it
            if call is not None:
                self._attempt(call)
        for each in self._patiences:
            self._attempt(each.expire)
        while self._soon:
            calls, self._soon = self._soon, []
            for soon in calls:
                self._attempt(soon)

    def _attempt(self, call: Callable[[], None]) -> None:
        """What nobody foresaw about one container's message must not end the service of all others."""
        try:
            call()
        except Exception:  # noqa: BLE001 - it is told in names.log, but does not fill the disk
            self._faults += 1
            if self._faults <= FAULTS_TOLD:
                sys.excepthook(*sys.exc_info())
