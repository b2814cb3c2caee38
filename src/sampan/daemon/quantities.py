"""Sizes, ages and limits as the daemon's options spell them."""

from __future__ import annotations

import re

from sampan.errors import InvalidArgument


def parse_ulimit(text: str) -> tuple[str, int, int]:
    """`nofile=1024:2048` or `nofile=1024`; -1 is unlimited.

    Raises:
        InvalidArgument: it is no such limit, or the soft one is above the hard one.
    """
    name, equals, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    try:
        pair = int(soft), int(hard if colon else soft)
    except ValueError:
        raise InvalidArgument(f"invalid ulimit argument: {text}") from None
    if not name or not equals:
        raise InvalidArgument(f"invalid ulimit argument: {text}")
    if pair[1] != -1 and (pair[0] == -1 or pair[0] > pair[1]):
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {pair[0]} > {pair[1]}"
        )
    return (name, *pair)


_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgtp]?)(i?)b?", re.IGNORECASE)
_PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str, option: str = "disk-budget") -> int:
    """Bytes of `20GB` (decimal, as `system df` shows sizes), `20GiB` or plain `20000000000`.

    Raises:
        InvalidArgument: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise InvalidArgument(
            f"invalid value for --{option}: {text}", hint="give a size like 20GB or 18GiB"
        )
    unit: int = (1024 if match[3] else 1000) ** _PREFIXES[match[2].lower()]
    return round(float(match[1]) * unit)


_AGE = re.compile(r"(\d{1,6})([smhdw])")
_AGE_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_age(text: str, option: str) -> float:
    """Seconds of `30d`, `12h`, `2w`.

    Raises:
        InvalidArgument: it is no age, or none at all.
    """
    match = _AGE.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise InvalidArgument(
            f"invalid value for --{option}: {text}", hint="give an age like 30d or 12h"
        )
    return float(int(match[1]) * _AGE_S[match[2]])
