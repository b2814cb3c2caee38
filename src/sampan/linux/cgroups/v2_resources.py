"""OCI resources → files and values of cgroup v2; no I/O of its own.

Source: runtime-spec config-linux.md "Control groups" and "Unified"; the kernel's
admin-guide/cgroup-v2.rst. What v1 has and v2 cannot do is refused, as the specification asks, but
for the limit on kernel memory, which no kernel has any longer.
"""

from __future__ import annotations

import math

from sampan.errors import RuntimeFailure
from sampan.linux.cgroups.v1_resources import device_number, page_size, rdma_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Setting = tuple[str, str]
    Read = Callable[[str], str | None]

CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids", "hugetlb", "rdma", "misc")
DEFAULT_PERIOD_US = 100_000

_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def settings(resources: Mapping[str, Any], read: Read) -> list[Setting]:
    """(file, value) for `resources`, devices apart, in order; `read` gives a file's text or None.

    Raises:
        RuntimeFailure: a value is outside of what the specification allows, or v2 cannot do it.
    """
    out: list[Setting] = []
    out += _memory(resources.get("memory") or {}, read)
    out += _cpu(resources.get("cpu") or {}, read)
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        out.append(("pids.max", number(limit)))
    out += _io(resources.get("blockIO") or {}, read)
    for entry in resources.get("hugepageLimits") or ():
        size, value = page_size(entry), str(entry["limit"])
        out.append((f"hugetlb.{size}.max", value))
        if read(f"hugetlb.{size}.rsvd.max") is not None:
            out.append((f"hugetlb.{size}.rsvd.max", value))
    for device, limits in (resources.get("rdma") or {}).items():
        out.append(("rdma.max", rdma_line(device, limits)))
    network = resources.get("network") or {}
    if network.get("classID") or network.get("priorities"):
        raise _impossible("network classes and priorities")
    for file, text in (resources.get("unified") or {}).items():
        out += _unified(file, str(text))
    return out


def number(value: int) -> str:
    """A limit; negative means none."""
    return "max" if value < 0 else str(value)


def _impossible(what: str) -> RuntimeFailure:
    return RuntimeFailure("cgroup", f"cgroup v2 does not have {what}")


def _unified(file: str, text: str) -> list[Setting]:
    """`unified` names files; one line a write, for a control file takes one at a time."""
    if "/" in file or "\0" in file or "." not in file.strip("."):
        raise RuntimeFailure("cgroup", f"invalid name {file!r} in the unified resources")
    return [(file, line) for line in text.splitlines() or [""]]


def _memory(memory: Mapping[str, Any], read: Read) -> list[Setting]:
    out: list[Setting] = []
    if memory.get("disableOOMKiller"):
        raise _impossible("a way to disable the OOM killer")
    if (memory.get("kernelTCP") or 0) > 0:
        raise _impossible("a limit on kernel TCP memory")
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness not in (-1, 0xFFFFFFFFFFFFFFFF):
        raise _impossible("a swappiness")
    limit = memory.get("limit") or 0
    if limit > 0 and memory.get("checkBeforeUpdate"):
        usage = int(read("memory.current") or 0)
        if usage > limit:
            raise RuntimeFailure(
                "cgroup", f"memory limit {limit} is below the current usage, {usage}"
            )
    swap = swap_maximum(limit, memory.get("swap") or 0)
    # Where the kernel has no swap accounting, no swap can be used past the limit nor be missed.
    if swap is not None and not (swap in ("0", "max") and read("memory.swap.max") is None):
        out.append(("memory.swap.max", swap))
    if limit:
        out.append(("memory.max", number(limit)))
    if reservation := memory.get("reservation") or 0:
        # v1's "no soft limit" protects nothing; memory.low "max" would protect everything.
        out.append(("memory.low", str(max(reservation, 0))))
    return out


def swap_maximum(limit: int, swap: int) -> str | None:
    """memory.swap.max for a memory `limit` and a memory+`swap` limit (0: not set, -1: none).

    Raises:
        RuntimeFailure: memory+swap without, or below, memory.
    """
    if swap == -1 or (swap == 0 and limit == -1):
        return "max"
    if swap == 0:
        return None
    if limit <= 0:
        raise RuntimeFailure("cgroup", "unable to set swap limit without memory limit")
    if swap < limit:
        raise RuntimeFailure("cgroup", f"memory+swap limit {swap} is below memory limit {limit}")
    return str(swap - limit)


def _cpu(cpu: Mapping[str, Any], read: Read) -> list[Setting]:
    out: list[Setting] = []
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise _impossible("realtime scheduling limits")
    idle = cpu.get("idle")
    if idle is not None:
        out.append(("cpu.idle", str(idle)))
    if (shares := cpu.get("shares") or 0) and not idle:
        out.append(("cpu.weight", str(cpu_weight(shares))))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        out.append(("cpu.max", _cpu_maximum(quota, period, read)))
    if (burst := cpu.get("burst")) is not None:
        out.append(("cpu.max.burst", str(burst)))
    for name in ("cpus", "mems"):
        if cpu.get(name):
            out.append((f"cpuset.{name}", str(cpu[name])))
    return out


def _cpu_maximum(quota: int, period: int, read: Read) -> str:
    """`QUOTA PERIOD`; the one that is not set stays what it is."""
    current = (read("cpu.max") or "max").split()
    if not period:
        period = int(current[1]) if len(current) > 1 else DEFAULT_PERIOD_US
    if not quota:
        return f"{current[0]} {period}"
    return f"{number(quota)} {period}"


def cpu_weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for cpu.shares (2 to 262144), 1024 being 100, the default of both.

    The curve is the one that OCI runtimes agreed on (runc 1.3.2, crun 1.23): quadratic in the
    logarithm, through (2, 1), (1024, 100) and (262144, 10000).
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def _io(block: Mapping[str, Any], read: Read) -> list[Setting]:
    out: list[Setting] = []
    if block.get("leafWeight"):
        raise _impossible("leaf weights")
    bfq = read("io.bfq.weight") is not None
    file = "io.bfq.weight" if bfq else "io.weight"
    if weight := block.get("weight") or 0:
        out.append((file, f"default {_io_weight(weight, bfq)}"))
    for entry in block.get("weightDevice") or ():
        if weight := entry.get("weight") or 0:
            out.append((file, f"{device_number(entry)} {_io_weight(weight, bfq)}"))
    for name, key in _THROTTLES:
        for entry in block.get(name) or ():
            # 0 lifts a limit on v1; here that is the word.
            rate = entry["rate"] or "max"
            out.append(("io.max", f"{device_number(entry)} {key}={rate}"))
    return out


def _io_weight(weight: int, bfq: bool) -> int:
    """BFQ takes v1's 10 to 1000 as it is; io.weight goes from 1 to 10000."""
    return weight if bfq else 1 + (weight - 10) * 9999 // 990


def controllers(items: list[Setting]) -> set[str]:
    """The controllers whose files are in `items`; `cgroup.*` files belong to none."""
    return {file.partition(".")[0] for file, _ in items} - {"cgroup"}
