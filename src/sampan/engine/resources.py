"""Limits: Docker's HostConfig checked and turned into the OCI spec's `linux.resources`.

Both are pure functions of the request and of what the machine has, so a test is a table. The texts
are dockerd's (verifyPlatformContainerResources), since people and scripts match on them.
Source: OCI runtime-spec config-linux.md, "Control groups".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from sampan.engine.model import Resources, ThrottleDevice, Ulimit, WeightDevice
from sampan.errors import InvalidArgument, NotFound

MINIMUM_MEMORY_BYTES = 6 << 20
MINIMUM_QUOTA_US = 1_000
PERIOD_RANGE_US = (1_000, 1_000_000)
NANO = 1_000_000_000

# RLIMIT_* of setrlimit(2), as --ulimit spells them.
ULIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What of this machine the limits depend on."""

    cpus: int
    cpuset_cpus: str
    cpuset_mems: str
    memory_limit: bool = True
    swap_limit: bool = True
    pids_limit: bool = True
    oom_kill_disable: bool = True
    memory_swappiness: bool = True
    cpu_realtime: bool = True
    kernel_memory_tcp: bool = True


def check_limits(host: Resources, machine: Machine, *, update: bool = False) -> list[str]:
    """Refuse limits that cannot be meant and drop what the kernel cannot do; return the warnings.

    With `update` they change those of a container, so memory+swap may come without memory.

    Raises:
        InvalidArgument: with dockerd's text.
    """
    return [
        *_check_memory(host, machine, update=update),
        *_check_kernel_memory(host, machine),
        *_check_cpu(host, machine),
        *_check_pids(host, machine),
        *_check_windows(host),
    ]


def check_ulimits(ulimits: list[Ulimit] | None) -> None:
    """Refuse limits that setrlimit(2) would.

    Raises:
        InvalidArgument: an unknown name, or a soft limit above the hard one.
    """
    for limit in ulimits or ():
        if limit.name not in ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.hard >= 0 and (limit.soft > limit.hard or limit.soft < 0):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: "
                f"{limit.soft} > {limit.hard}"
            )


def _check_memory(host: Resources, machine: Machine, *, update: bool) -> list[str]:
    warnings = []
    if host.memory and not machine.memory_limit:
        warnings.append(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
        host.memory, host.memory_swap = 0, -1
    if host.memory and host.memory < MINIMUM_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and host.memory_swap != -1 and not machine.swap_limit:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        host.memory_swap = -1
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if host.memory == 0 and host.memory_swap > 0 and not update:
        raise InvalidArgument(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    swappiness = host.memory_swappiness
    if swappiness is not None and swappiness != -1 and not 0 <= swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )
    if host.memory_reservation and host.memory_reservation < MINIMUM_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if swappiness not in (None, -1) and not machine.memory_swappiness:
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not "
            "mounted. Memory swappiness discarded."
        )
        host.memory_swappiness = None
    if host.oom_kill_disable and not machine.oom_kill_disable:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        host.oom_kill_disable = None
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result "
            "in the system running out of resources."
        )
    return warnings


def _check_kernel_memory(host: Resources, machine: Machine) -> list[str]:
    warnings = []
    if host.kernel_memory:
        if 0 < host.kernel_memory < MINIMUM_MEMORY_BYTES:
            raise InvalidArgument("Minimum kernel memory limit allowed is 6MB")
        warnings += [
            "Specifying a kernel memory limit is deprecated and will be removed in a future release.",
            "Kernel memory limits are gone from the kernel. Limitation discarded.",
        ]
        host.kernel_memory = 0
    if host.kernel_memory_tcp and not machine.kernel_memory_tcp:
        warnings.append(
            "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not "
            "mounted. Limitation discarded."
        )
        host.kernel_memory_tcp = 0
    return warnings


def _check_windows(host: Resources) -> list[str]:
    """What only Windows has; dockerd's texts, where it has one."""
    for value, what in (
        (host.io_maximum_iops, "IOPs"),
        (host.io_maximum_bandwidth, "bandwidth"),
    ):
        if value:
            raise InvalidArgument(
                f"Invalid QoS settings: linux does not support configuration of maximum {what}"
            )
    warnings = []
    if host.cpu_count:
        warnings.append("linux does not support CPU count. Count discarded.")
        host.cpu_count = 0
    if host.cpu_percent:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        host.cpu_percent = 0
    return warnings


def _check_cpu(host: Resources, machine: Machine) -> list[str]:
    if host.nano_cpus:
        for value, name in ((host.cpu_period, "CPU Period"), (host.cpu_quota, "CPU Quota")):
            if value:
                raise InvalidArgument(
                    f"Conflicting options: Nano CPUs and {name} cannot both be set"
                )
        if host.nano_cpus < NANO // 100 or host.nano_cpus > machine.cpus * NANO:
            raise InvalidArgument(
                f"range of CPUs is from 0.01 to {machine.cpus}.00, as there are only "
                f"{machine.cpus} CPUs available"
            )
    if host.cpu_shares < 0:
        raise InvalidArgument(
            f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer"
        )
    if host.cpu_period and not PERIOD_RANGE_US[0] <= host.cpu_period <= PERIOD_RANGE_US[1]:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < MINIMUM_QUOTA_US:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for wanted, available, short, long in (
        (host.cpuset_cpus, machine.cpuset_cpus, "cpus", "CPUs"),
        (host.cpuset_mems, machine.cpuset_mems, "mems", "memory nodes"),
    ):
        if not parse_set(wanted, short) <= parse_set(available, short):
            raise InvalidArgument(
                f"Requested {long} are not available - requested {wanted}, available: {available}"
            )
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not machine.cpu_realtime:
        raise InvalidArgument("Your kernel does not support CPU real-time scheduler")
    if 0 < host.cpu_realtime_period < host.cpu_realtime_runtime:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    return []


def _check_pids(host: Resources, machine: Machine) -> list[str]:
    if host.pids_limit and not machine.pids_limit:
        host.pids_limit = None
        return [
            (
                "Your kernel does not support PIDs limit capabilities or the cgroup is not "
                "mounted. PIDs limit discarded."
            )
        ]
    return []


def parse_set(text: str, name: str) -> frozenset[int]:
    """The numbers in a list such as `0-2,4`; see "List format" in cpuset(7).

    Raises:
        InvalidArgument: with dockerd's text.
    """
    numbers: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        bounds = (first, last if dash else first)
        if not all(bound.isdecimal() and len(bound) < 6 for bound in bounds):
            raise InvalidArgument(f"Invalid value {text} for cpuset {name}")
        if int(bounds[1]) < int(bounds[0]):
            raise InvalidArgument(f"Invalid value {text} for cpuset {name}")
        numbers.update(range(int(bounds[0]), int(bounds[1]) + 1))
    return frozenset(numbers)


def oci_resources(host: Resources, devices: list[dict[str, Any]]) -> dict[str, Any]:
    """`linux.resources` for a checked HostConfig; what was not asked for is not in it."""
    resources: dict[str, Any] = {"devices": devices}
    for name, part in (
        ("memory", _memory(host)),
        ("cpu", _cpu(host)),
        ("blockIO", _block_io(host)),
    ):
        if part:
            resources[name] = part
    if host.pids_limit:
        resources["pids"] = {"limit": host.pids_limit}
    return resources


def _memory(host: Resources) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if host.memory:
        memory["limit"] = host.memory
        # Docker's default: as much swap as memory, so twice the limit in all.
        memory["swap"] = host.memory_swap or 2 * host.memory
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness != -1:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    if host.kernel_memory_tcp:
        memory["kernelTCP"] = host.kernel_memory_tcp
    return memory


def _cpu(host: Resources) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if host.cpu_shares:
        cpu["shares"] = host.cpu_shares
    if host.nano_cpus:
        cpu["period"] = 100_000
        cpu["quota"] = host.nano_cpus * 100_000 // NANO
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpu_realtime_period:
        cpu["realtimePeriod"] = host.cpu_realtime_period
    if host.cpu_realtime_runtime:
        cpu["realtimeRuntime"] = host.cpu_realtime_runtime
    if host.cpuset_cpus:
        cpu["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        cpu["mems"] = host.cpuset_mems
    return cpu


def _block_io(host: Resources) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if host.blkio_weight:
        block["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        block["weightDevice"] = [
            {**_device_numbers(entry), "weight": entry.weight} for entry in host.blkio_weight_device
        ]
    for name, entries in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if entries:
            block[name] = [{**_device_numbers(entry), "rate": entry.rate} for entry in entries]
    return block


def _device_numbers(entry: WeightDevice | ThrottleDevice) -> dict[str, int]:
    try:
        number = os.stat(entry.path).st_rdev
    except OSError as error:
        raise NotFound(f"no such device: {entry.path}: {error.strerror}") from error
    return {"major": os.major(number), "minor": os.minor(number)}
