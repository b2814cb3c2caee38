"""The shims that wait for their containers: how many, with how much of their memory, and since when.

A request finds one, and so do those that follow it closely: as many wait as came lately, `MOST` at most. What takes
a processor is done when it disturbs nobody: the first is forked as soon as somebody's end or a pause shows that
nobody waits, the others in a longer pause only. When requests have stopped, all give way to a lean one.
"""

from __future__ import annotations

import socket
from collections import deque

from sampan.shim import protocol

QUIET_S = (
    0.01  # so long after a request the next spare is forked at the latest: not in a start's way
)
# So long after a request the further ones are: a command that follows another does not share its processors with that.
PAUSE_S = 0.1
RETRY_S = 1.0  # after a fork that failed
# So long after a request another one is likely, and worth the 8 MiB of a spare's copied pages.
BUSY_S = 3.0
# As many as start at once on two processors (`engine.start_gate`).
MOST = 4


class Spare:
    """A shim that waits for its container; `warm`: with its pages copied ahead.

    `helper` leads to its helper, which gets the same packet: it need not wait until the shim has
    read it and passed it on.
    """

    __slots__ = ("helper", "pid", "sock", "warm")

    def __init__(self, pid: int, sock: socket.socket, helper: socket.socket, *, warm: bool) -> None:
        self.pid = pid
        self.sock = sock
        self.helper = helper
        self.warm = warm

    def give(self, packet: bytes, fds: list[int]) -> bool:
        """Have it do what the packet asks for; False: it cannot, and nothing of it is done.

        The helper first: it is the one whom all wait for.

        Raises:
            OSError: the shim was killed a moment ago, and its helper, which dies with it, has begun.
        """
        try:
            protocol.send_packet(self.helper, packet, fds)
        except OSError:
            return False  # killed, the shim or its helper alone
        protocol.send_packet(self.sock, packet, fds)
        return True

    def close(self) -> None:
        """Let go of it; without a packet it ends."""
        self.sock.close()
        self.helper.close()


class Spares:
    """Those of one zygote, and when it has to see to them. All times are time.monotonic()'s."""

    __slots__ = ("_asked", "_due", "_hold_until", "_ready")

    def __init__(self) -> None:
        self._ready: list[Spare] = []
        self._asked: deque[float] = deque(maxlen=MOST)
        self._due = 0.0
        self._hold_until = 0.0

    def take(self, now: float) -> Spare | None:
        """One for the request that came now, if one is there; the caller's from here."""
        self._asked.append(now)
        self._due = now + QUIET_S
        return self._ready.pop() if self._ready else None

    def patience(self, now: float) -> float | None:
        """In how many seconds `make_room` is due, and a fork; None: not before a request."""
        if not self._ready:
            return max(0.0, self._due - now, self._hold_until - now)
        if not self._ready[0].warm:
            return None
        due = self._busy_until
        if len(self._ready) < sum(asked > now - BUSY_S for asked in self._asked):
            due = min(due, max(self._asked[-1] + PAUSE_S, self._hold_until))
        return max(0.0, due - now)

    @property
    def _busy_until(self) -> float:
        return self._asked[-1] + BUSY_S if self._asked else 0.0

    def make_room(self, now: float) -> bool:
        """Before a fork: whether the new one is to be warm; if not, the warm ones end."""
        warm = now < self._busy_until
        if not warm:
            self.close()
        return warm

    def add(self, spare: Spare) -> None:
        self._ready.append(spare)

    def not_forked(self, now: float) -> None:
        """The fork failed: the next request will meet the same and say it."""
        self._hold_until = now + RETRY_S

    def ended(self, pid: int, now: float) -> None:
        """A child of the zygote has ended. A spare that does so is not replaced at once, it might each time.

        Who has had something short done may soon want more, and now nobody waits.
        """
        for spare in self._ready:
            if spare.pid == pid:
                spare.close()
                self._ready.remove(spare)
                self._hold_until = now + QUIET_S
                return
        self._due = min(self._due, now)

    def close(self) -> None:
        """Let go of all."""
        while self._ready:
            self._ready.pop().close()
