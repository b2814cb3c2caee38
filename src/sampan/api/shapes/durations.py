"""Spans of time in Docker's words: `Up 5 minutes`."""

from __future__ import annotations

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def human_duration(span_ns: int) -> str:
    """As go-units' HumanDuration says it."""
    seconds = span_ns // SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = span_ns // MINUTE
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = (span_ns + HOUR // 2) // HOUR
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for name, length, below in (("days", 24, 24 * 7 * 2), ("weeks", 24 * 7, 24 * 30 * 2)):
        if hours < below:
            return f"{hours // length} {name}"
    if hours < 24 * 365 * 2:
        return f"{hours // (24 * 30)} months"
    return f"{span_ns // HOUR // 24 // 365} years"
