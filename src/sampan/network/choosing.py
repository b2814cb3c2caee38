"""One engine at a time chooses a subnet: what is free is told by the kernel's routes, and a subnet that one
has chosen is among them only when its bridge is made.

    with choosing_subnet():
        …                       # ask for routes, choose, make the bridge

The lock is on a file of the network namespace that only root may open, so that engines which share no
routes do not wait for each other, and nobody else can make them wait.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = "/proc/sys/net/ipv4/route/flush"
PATIENCE_S = 20.0  # a choice takes milliseconds: who holds it longer has been stopped
_PAUSE_S = 0.005
_log = logging.getLogger(__name__)


@contextmanager
def choosing_subnet(*, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Blocks until the others have chosen, or for `patience_s`; goes on without the lock then."""
    try:
        lock = os.open(LOCK, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:  # a container's read-only /proc/sys
        _log.debug("subnets are chosen without a lock: %s", error)
        yield
        return
    try:
        _take(lock, patience_s)
        yield
    finally:
        os.close(lock)


def _take(lock: int, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                _log.warning("another engine has been choosing a subnet for %g s", patience_s)
                return
        time.sleep(_PAUSE_S)
