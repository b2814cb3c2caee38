"""Waiting for a named condition, the only way in which tests wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, *, timeout_s: float = 30.0) -> T:
    """Return the first true value of `condition`, asked again and again.

    Raises:
        AssertionError: it did not become true within `timeout_s`; the message says `what`.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
