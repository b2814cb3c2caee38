"""Where the time of one start goes: `sampand --trace-start`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

log = logging.getLogger(__name__)


class StartTrace:
    """Marks on CLOCK_MONOTONIC, the engine's and behind them those of zygote, shim and runtime.

    One line of JSON per start goes to the log: `start trace {"id": …, "stages": [[name, µs], …]}`,
    each stage with the microseconds since the one before it.
    """

    __slots__ = ("_enabled", "_marks")

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._marks: list[tuple[str, int]] = []
        self.mark("begin")

    def mark(self, stage: str) -> None:
        """Note that a stage is done."""
        if self._enabled:
            self._marks.append((stage, time.monotonic_ns()))

    def finish(self, container_id: str, more: Sequence[tuple[str, int]]) -> None:
        """Write the trace to the log."""
        if not self._enabled:
            return
        self.mark("started")
        marks = sorted([*self._marks, *more], key=lambda mark: mark[1])
        stages = [
            (stage, (at_ns - before_ns) // 1000)
            for (stage, at_ns), (_, before_ns) in zip(marks[1:], marks, strict=False)
        ]
        log.info("start trace %s", json.dumps({"id": container_id, "stages": stages}))
