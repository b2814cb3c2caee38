"""Signals as Docker's clients spell them."""

from __future__ import annotations

import signal

from sampan.engine.numbers import decimal
from sampan.errors import InvalidArgument

DEFAULT_STOP_SIGNAL = "SIGTERM"


def signal_number(text: str) -> int:
    """The number of `KILL`, `SIGKILL`, `9`, `RTMIN+3` or `SIGRTMAX-1`; see signal(7).

    Raises:
        InvalidArgument: with dockerd's text, when there is no such signal.
    """
    invalid = InvalidArgument(f"Invalid signal: {text}")
    if text.isdecimal():
        number = decimal(text)
        if number is not None and 1 <= number <= signal.SIGRTMAX:
            return number
        raise invalid
    name = text.upper().removeprefix("SIG")
    for base, first, sign in (("RTMIN+", signal.SIGRTMIN, 1), ("RTMAX-", signal.SIGRTMAX, -1)):
        offset = decimal(name[len(base) :]) if name.startswith(base) else None
        if offset is not None:
            real_time = first + sign * offset
            if signal.SIGRTMIN <= real_time <= signal.SIGRTMAX:
                return int(real_time)
            raise invalid
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise invalid from None
