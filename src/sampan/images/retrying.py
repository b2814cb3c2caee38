"""How long to wait before a registry is asked again, and what is said meanwhile."""

from __future__ import annotations

import asyncio

from sampan.images import progress
from sampan.images.distribution.failures import Temporary
from sampan.images.progress import Progress

_RETRY_AFTER_MAX_S = 600
_DELAY_MAX_S = 20


def delay_s(failures: int, error: Temporary) -> int:
    """Seconds until the next attempt after that many in a row failed: the registry's wish, else
    1, 2, 4, … 20.

    Raises:
        Temporary: the registry asks for more patience than anybody has.
    """
    if error.retry_after is None:
        return min(1 << max(0, failures - 1), _DELAY_MAX_S)
    if error.retry_after > _RETRY_AFTER_MAX_S:
        raise error
    return max(1, round(error.retry_after))


async def count_down(seconds: int, label: str, report: Progress, *, second_s: float = 1.0) -> None:
    """Wait, and say each second of layer `label` how long, as docker does."""
    for left in range(seconds, 0, -1):
        plural = "" if left == 1 else "s"
        report(progress.step(f"Retrying in {left} second{plural}", label))
        await asyncio.sleep(second_s)
