"""The shim's event loop: epoll, one callback a descriptor."""

from __future__ import annotations

import os
import select
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
BROKEN = select.EPOLLHUP | select.EPOLLERR


class Loop:
    """Calls back with the events of a descriptor; level-triggered.

    A callback may be called for nothing (a descriptor closed and opened again in one round), so all
    of them work on descriptors that do not block.
    """

    __slots__ = ("_epoll", "_handlers", "_wakeup", "_wakeup_end")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._wakeup = self._wakeup_end = -1

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; to be called before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def catch_children(self) -> None:
        """Have ended children (SIGCHLD) wake the loop, which may run only later: `on_child`.

        System calls elsewhere are not interrupted: the signal restarts them.
        """
        self._wakeup, self._wakeup_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, ignore_signal)
        signal.siginterrupt(signal.SIGCHLD, False)

    def on_child(self, handler: Callable[[], None]) -> None:
        """Call `handler` when children have ended, from the loop and never in a signal."""
        if self._wakeup < 0:
            self.catch_children()

        def woken(_: int) -> None:
            try:
                while len(os.read(self._wakeup, 512)) == 512:
                    pass
            except BlockingIOError:
                pass
            handler()

        self.watch(self._wakeup, READ, woken)

    def close(self) -> None:
        """In the child of a fork: give up the parent's loop; what it watches stays open."""
        self._epoll.close()
        if self._wakeup >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup)
            os.close(self._wakeup_end)

    def run_once(self, timeout_s: float | None = None) -> bool:
        """Wait for events and handle them; False when none came in time."""
        handlers = self._handlers
        ready = self._epoll.poll(timeout_s)
        for fd, events in ready:
            handler = handlers.get(fd)
            if handler is not None:
                handler(events)
        return bool(ready)


def ignore_signal(*_: object) -> None:
    """A handler, not SIG_IGN: with that the kernel would reap our children itself."""
