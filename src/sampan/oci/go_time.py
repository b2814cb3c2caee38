"""RFC 3339 times with nanoseconds, as Docker's JSON has them, to and from Unix nanoseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sampan.errors import InvalidArgument

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZERO_TIME_NS = -62135596800 * 1_000_000_000
"""Go's zero time, `0001-01-01T00:00:00Z`: how Docker spells "never"."""

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_UNIT_NS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "ns": 1,
}


def parse_duration(text: str) -> int:
    """Nanoseconds of one of Go's durations: `1m30s`, `500ms`, `0`.

    Raises:
        InvalidArgument: Go's text.
    """
    if text == "0":
        return 0
    matches = _DURATION.findall(text)
    if not text or "".join(number + unit for number, unit in matches) != text:
        raise InvalidArgument(f'time: invalid duration "{text}"')
    return round(sum(float(number) * _UNIT_NS[unit] for number, unit in matches))


def parse_time(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time; an empty text is Go's zero time.

    Raises:
        ValueError: it is no such time.
    """
    if not text:
        return ZERO_TIME_NS
    head, dot, tail = text.partition(".")
    nanoseconds = 0
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        nanoseconds = int(tail[:digits].ljust(9, "0")[:9])
        head += tail[digits:]
    moment = datetime.fromisoformat(head)
    if moment.tzinfo is None:
        raise ValueError(f"time without zone: {text}")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + nanoseconds


def format_time(unix_ns: int) -> str:
    """RFC3339Nano: as many fraction digits as needed, in UTC."""
    seconds, nanoseconds = divmod(unix_ns, 1_000_000_000)
    days, rest = divmod(seconds, 86_400)
    date = datetime.fromordinal(_EPOCH.toordinal() + days)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{date.year:04}-{date.month:02}-{date.day:02}T{clock}{fraction}Z"
