"""Rate limits as they are written: `in=10mbit,out=5mbit`. Plain values.

`in` is what reaches the container, `out` what it sends. Units are tc(8)'s: `bit`, `kbit`, `mbit`,
`gbit` count by thousands, with an `i` (`kibit`) by 1024; `bps`, `kbps` … are bytes. `0` is no limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sampan.errors import InvalidArgument

_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(?:([kmgt]?)(i?)(bit|bps))?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MINIMUM_BYTES = 1000  # a second; below, one packet takes longer than TCP waits for
_MAXIMUM_BYTES = (1 << 32) - 1  # what the 32 bits of tc's older interface hold, 34 Gbit/s


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a second in each direction; 0 is no limit."""

    in_bytes: int = 0
    out_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.in_bytes or self.out_bytes)


def parse_rate(text: str) -> Rate:
    """The limits that a text means; an empty text or `none` is no limit.

    Raises:
        InvalidArgument: which part cannot be meant.
    """
    found: dict[str, int] = {}
    for part in text.split(",") if text not in ("", "none") else ():
        direction, equals, value = part.strip().partition("=")
        if direction not in ("in", "out") or not equals or direction in found:
            raise InvalidArgument(
                f"invalid network rate: {text!r}", hint="in=10mbit,out=5mbit, or one of them"
            )
        found[direction] = _bytes(value, text)
    return Rate(found.get("in", 0), found.get("out", 0))


def _bytes(value: str, text: str) -> int:
    parts = _RATE.fullmatch(value)
    if parts is None:
        raise InvalidArgument(
            f"invalid network rate: {text!r}: {value!r} is no rate",
            hint="such as 500kbit or 10mbit",
        )
    number, prefix, binary, unit = parts.groups(default="")
    factor = (1024 if binary else 1000) ** _POWERS[prefix.lower()]
    rate = float(number) * factor / (1 if unit.lower() == "bps" else 8)
    if rate and not _MINIMUM_BYTES <= rate <= _MAXIMUM_BYTES:
        raise InvalidArgument(
            f"invalid network rate: {text!r}: {value} is not between 8kbit and 34gbit"
        )
    return int(rate)
