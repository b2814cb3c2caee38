"""Points in time that a restart of the daemon, a change of the clock and a sleep of the machine do not move.

Within one boot the kernel's CLOCK_BOOTTIME decides, which nobody can set and which goes on while the machine
sleeps; only after a reboot the wall clock says how much of the time is left.
"""

from __future__ import annotations

import time
from functools import cache

import msgspec


class Deadline(msgspec.Struct, frozen=True, kw_only=True):
    """When something ends: `boot_ns` on CLOCK_BOOTTIME of the boot `boot`, and in Unix ns."""

    boot: str
    boot_ns: int
    unix_ns: int
    span_ns: int


def now_ns() -> int:
    """CLOCK_BOOTTIME; see clock_gettime(2)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@cache
def boot() -> str:
    """The kernel's name of this boot; see random(4)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def after(span_ns: int) -> Deadline:
    """The point in time `span_ns` from now."""
    return Deadline(
        boot=boot(),
        boot_ns=now_ns() + span_ns,
        unix_ns=time.time_ns() + span_ns,
        span_ns=span_ns,
    )


def after_or_never(span_ns: int) -> Deadline | None:
    """`after`, None for no time at all."""
    return after(span_ns) if span_ns else None


def due_ns(deadline: Deadline) -> int:
    """When it is, on this boot's clock. That of an earlier boot is at most its whole span away, whatever
    the wall clock says."""
    if deadline.boot == boot():
        return deadline.boot_ns
    left_ns = min(deadline.unix_ns - time.time_ns(), deadline.span_ns)
    return now_ns() + left_ns
