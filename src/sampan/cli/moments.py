"""Points in time as people write them: RFC 3339 in its shorter forms, Unix times, or `10m` ago."""

from __future__ import annotations

import time

from sampan.cli.failures import CommandError
from sampan.cli.units import parse_rfc3339
from sampan.cli.values import NANO, parse_duration


def api_time(text: str, problem: str = "") -> str:
    """The moment as the API takes it: seconds, a dot, nine digits.

    Raises:
        CommandError: the text names no moment.
    """
    try:
        return _relative(text)
    except ValueError:
        pass
    try:
        return _absolute(text)
    except ValueError:
        lead = f"{problem}: " if problem else ""
        raise CommandError(f'{lead}failed to parse value as time or duration: "{text}"') from None


def _relative(text: str) -> str:
    return _seconds(time.time_ns() - parse_duration(text))


def _seconds(nanoseconds: int) -> str:
    whole, part = divmod(nanoseconds, NANO)
    return f"{whole}.{part:09d}"


def _absolute(text: str) -> str:
    whole, dot, part = text.partition(".")
    if (
        whole.lstrip("-").isdecimal()
        and (not dot or part.isdecimal())
        and len(whole.lstrip("-")) != 4
    ):
        return f"{whole}.{part:0<9}" if dot else whole
    date, mark, clock = text.partition("T")
    zone = ""
    for letter in "Zz+-":
        at = clock.find(letter) if mark else -1
        if at >= 0:
            clock, zone = clock[:at], clock[at:]
            break
    fields = date.split("-")
    if len(fields) > 3 or not fields[0].isdecimal():
        raise ValueError(text)
    clock, dot, part = clock.partition(".")
    times = clock.split(":") if clock else []
    full = "-".join([*fields, "01", "01"][:3]) + "T" + ":".join([*times, "00", "00", "00"][:3])
    if zone:
        seconds = int(parse_rfc3339(full + zone))
    else:
        seconds = int(time.mktime(time.strptime(full, "%Y-%m-%dT%H:%M:%S")))
    return f"{seconds}.{part if dot else '':0<9}"
