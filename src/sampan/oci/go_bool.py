"""Truths as Docker's clients write them."""

from __future__ import annotations

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def parse_bool(text: str) -> bool | None:
    """What Go's strconv.ParseBool takes; None for anything else."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None
