"""Progress on a terminal: a row for each layer with bytes, rate and time left, and one for all.

The rows are a block at the bottom of the screen that is drawn anew, ten times a second at most.
What is no layer's step is a line above it.
"""

from __future__ import annotations

import time

from sampan.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INTERVAL_S = 0.1
_WINDOW_S = 3.0
_BAR_MAX = 40
_NUMBERS_WIDTH = len("99.9MB/99.9MB  99.9MB/s  1m05s left")
"""Kept free for them, so that bars do not change their length all the time."""
_STATUS_WIDTH = len("Downloading")
_MOVING = ("Downloading", "Extracting", "Compressing", "Pushing", "Importing")
_ENDED = ("Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted from")


class Rate:
    """Bytes a second over the last few seconds."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def add(self, now: float, amount: int) -> None:
        """`amount` bytes were there at the time `now`, in seconds."""
        if self._points and amount < self._points[-1][1]:
            self._points.clear()  # begun anew
        self._points.append((now, amount))
        while len(self._points) > 2 and now - self._points[0][0] > _WINDOW_S:
            del self._points[0]

    @property
    def per_second(self) -> float:
        if len(self._points) < 2:
            return 0.0
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - start) if end > start else 0.0


class Row:
    """One layer: what it is at, and how far."""

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self.status = ""
        self.current = 0
        self.total = 0
        self.fetched = 0
        self.rate = Rate()

    @property
    def ended(self) -> bool:
        return self.status.startswith(_ENDED)

    def take(self, message: dict[str, Any], now: float) -> None:
        """Take a message of the engine's over."""
        status = str(message.get("status", ""))
        if status != self.status:
            self.rate = Rate()
        self.status = status
        detail = message.get("progressDetail") or {}
        self.current = int(detail.get("current") or 0)
        total = max(0, int(detail.get("total") or 0))
        if status in ("Downloading", "Pushing", "Importing"):
            self.total, self.fetched = total, min(self.current, total)
        elif status == "Download complete" or self.ended:
            self.fetched = self.total
        elif status == "Compressing":
            self.total = total
        elif status == "Extracting":
            self.total = self.fetched = total
        if status in _MOVING:
            self.rate.add(now, self.current)

    def line(self, width: int) -> str:
        """The row in at most `width` columns."""
        if self.status == "Importing" and not self.total:
            numbers = human_size(self.current, 3) + pace(self.rate.per_second, 0)
            return f"{self.identifier}: {self.status} {numbers}"[:width]
        if self.status not in _MOVING or not self.total:
            return f"{self.identifier}: {self.status}"[:width]
        head = f"{self.identifier}: {self.status.ljust(_STATUS_WIDTH)}"
        numbers = f"{human_size(self.current, 3)}/{human_size(self.total, 3)}"
        if self.status != "Extracting":
            numbers += pace(self.rate.per_second, self.total - self.current)
        return drawn(head, self.current, self.total, numbers, width)


class Bars:
    """The block of rows; `write` puts text on the terminal, `size` gives its lines and columns."""

    def __init__(self, write: Any, size: Any, clock: Any = time.monotonic) -> None:
        self._write = write
        self._size = size
        self._clock = clock
        self._rows: dict[str, Row] = {}
        self._rate = Rate()
        self._drawn = 0
        self._next = 0.0

    def take(self, message: dict[str, Any]) -> None:
        """A message about a layer."""
        now = self._clock()
        identifier = str(message["id"])
        row = self._rows.get(identifier)
        is_new = row is None
        if row is None:
            row = self._rows[identifier] = Row(identifier)
        row.take(message, now)
        self._rate.add(now, sum(each.fetched for each in self._rows.values()))
        if now >= self._next or is_new or row.ended:
            self._next = now + _INTERVAL_S
            self._draw(final=False)

    def line(self, text: str) -> None:
        """A line of its own; the rows above it stay as they are."""
        self.finish()
        self._write(text + "\n")

    def finish(self) -> None:
        """Draw the rows for the last time, without the sum."""
        if self._rows:
            self._draw(final=True)
            self._rows.clear()
            self._rate = Rate()
            self._drawn = 0

    def _draw(self, *, final: bool) -> None:
        lines, columns = self._size()
        width = max(20, columns - 1)
        shown = [row.line(width) for row in self._chosen(max(2, lines - 2), final)]
        if not final:
            shown += [line[:width] for line in self._sum()]
        text = f"\x1b[{self._drawn}A" if self._drawn else ""
        text += "".join(f"\r\x1b[2K{line}\n" for line in shown)
        if len(shown) < self._drawn:
            text += "\x1b[J"
        self._drawn = len(shown)
        self._write(text)

    def _chosen(self, most: int, final: bool) -> list[Row]:
        """The rows that fit: all, or those that are not through; at the end all of them."""
        rows = list(self._rows.values())
        if final or len(rows) <= most:
            return rows
        return [row for row in rows if not row.ended][:most]

    def _sum(self) -> list[str]:
        """The line about all layers: none while nothing is on its way."""
        rows = [row for row in self._rows.values() if row.status != "Already exists"]
        if [row.status for row in rows] == ["Importing"]:
            return []  # not a layer among others
        if not any(row.total for row in rows):
            return []
        fetched = sum(row.fetched for row in rows)
        total = sum(row.total for row in rows)
        through = sum(row.ended for row in rows)
        # A layer that waits has not said its size.
        known = all(row.total for row in rows)
        text = f"{through}/{len(rows)} layers, {human_size(fetched, 3)}"
        text += f"/{human_size(total, 3)}" if known else ""
        if known and fetched == total:
            return [text]
        return [text + pace(self._rate.per_second, total - fetched if known else 0)]


def pace(rate: float, left: int) -> str:
    """`  12MB/s  3s left`, what of it is known."""
    if rate < 1:
        return ""
    text = f"  {human_size(rate, 3)}/s"
    return f"{text}  {duration(left / rate)} left" if left > 0 else text


def duration(seconds: float) -> str:
    """`3s`, `2m05s`, `1h02m`."""
    whole = int(seconds + 0.999)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    return f"{minutes // 60}h{minutes % 60:02}m"


def drawn(head: str, current: int, total: int, numbers: str, width: int) -> str:
    """Head, bar and numbers in `width` columns; the bar shrinks, and is left out first."""
    room = min(_BAR_MAX, width - len(head) - max(len(numbers), _NUMBERS_WIDTH) - 5)
    if room < 5:
        return f"{head} {numbers}"[:width]
    full = min(room, room * current // total)
    arrow = "=" * full + (">" if full < room else "")
    return f"{head} [{arrow.ljust(room)}] {numbers}"
