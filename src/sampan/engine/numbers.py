"""Numbers in texts that clients send."""

from __future__ import annotations

# More do not fit 64 bits; Python refuses some thousands with an error of its own.
LONGEST = 18


def decimal(text: str) -> int | None:
    """The number that ASCII digits spell, None if they are none or too many."""
    if text.isascii() and text.isdecimal() and len(text) <= LONGEST:
        return int(text)
    return None
