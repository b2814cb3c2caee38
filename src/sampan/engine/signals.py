"""Signals as Docker's clients spell them."""

from __future__ import annotations

import signal

from sampan.errors import InvalidArgument

DEFAULT_STOP_SIGNAL = "SIGTERM"


def signal_number(text: str) -> int:
    """The number of `KILL`, `SIGKILL`, `9`, `RTMIN+3` or `SIGRTMAX-1`; see signal(7).

    Raises:
        InvalidArgument: with dockerd's text, when there is no such signal.
    """
    invalid = InvalidArgument(f"Invalid signal: {text}")
    if text.isdecimal():
        if 1 <= int(text) <= signal.SIGRTMAX:
            return int(text)
        raise invalid
    name = text.upper().removeprefix("SIG")
    for base, number, sign in (("RTMIN+", signal.SIGRTMIN, 1), ("RTMAX-", signal.SIGRTMAX, -1)):
        if name.startswith(base) and name[len(base) :].isdecimal():
            real_time = number + sign * int(name[len(base) :])
            if signal.SIGRTMIN <= real_time <= signal.SIGRTMAX:
                return int(real_time)
            raise invalid
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise invalid from None
