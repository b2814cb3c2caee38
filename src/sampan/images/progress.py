"""Docker's progress messages: one JSON document each, which `docker pull` and `push` draw as bars.

    {"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "progress": "[…", "id": …}

Source: moby, pkg/jsonmessage and pkg/streamformatter (20.10): field names, and the text of the bar,
which clients that are no terminal print as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Progress = Callable[[dict[str, Any]], None]
"""Takes a message; called on the event loop."""

_INTERVAL_S = 0.1
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def status(text: str, identity: str = "") -> dict[str, Any]:
    """A line of its own: `Digest: …`, `Status: …`; with an ID: `latest: Pulling from …`."""
    return {"status": text, "id": identity} if identity else {"status": text}


def step(text: str, identity: str) -> dict[str, Any]:
    """What a layer is at: `Waiting`, `Pull complete` …"""
    return {"status": text, "progressDetail": {}, "id": identity}


def bar(text: str, identity: str, current: int, total: int) -> dict[str, Any]:
    """How far a layer is, in bytes; `total` 0: unknown."""
    detail = {name: value for name, value in (("current", current), ("total", total)) if value > 0}
    return {
        "status": text,
        "progressDetail": detail,
        "progress": bar_text(current, total),
        "id": identity,
    }


def bar_text(current: int, total: int) -> str:
    """`[====>    ]  1.2MB/3.4MB`, 50 columns wide."""
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current):>8}"
    half = min(int(current / total * 100) // 2, 50)
    numbers = f"{human_size(current):>8}"
    if current <= total:
        numbers += f"/{human_size(total)}"
    return f"[{'=' * half}>{' ' * (50 - half)}] {numbers}"


def human_size(size: float) -> str:
    """Decimal units with four digits, as go-units: `1.984MB`."""
    step = 0
    while size >= 1000 and step < len(_UNITS) - 1:
        size /= 1000
        step += 1
    return f"{size:.4g}{_UNITS[step]}"


class Meter:
    """Says when a bar may be drawn again: ten times a second, and at its end."""

    def __init__(self) -> None:
        self._next = 0.0

    def due(self, *, final: bool = False) -> bool:
        now = time.monotonic()
        if now < self._next and not final:
            return False
        self._next = now + _INTERVAL_S
        return True
