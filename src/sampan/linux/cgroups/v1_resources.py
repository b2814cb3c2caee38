"""OCI resources → files and values of cgroup v1; no I/O.

Source: runtime-spec config-linux.md "Control groups"; the kernel's admin-guide/cgroup-v1/.
"""

from __future__ import annotations

from sampan.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

Setting = tuple[str, str, str]
"""Controller, file in its directory, value."""

SECTIONS = frozenset(
    ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "devices", "unified")
)

_CPU = (
    ("period", "cpu", "cpu.cfs_period_us"),
    ("quota", "cpu", "cpu.cfs_quota_us"),
    ("burst", "cpu", "cpu.cfs_burst_us"),
    ("shares", "cpu", "cpu.shares"),
    ("realtimePeriod", "cpu", "cpu.rt_period_us"),
    ("realtimeRuntime", "cpu", "cpu.rt_runtime_us"),
    ("idle", "cpu", "cpu.idle"),
    ("cpus", "cpuset", "cpuset.cpus"),
    ("mems", "cpuset", "cpuset.mems"),
)
# 0 means "not set" here for clients that cannot leave a number out (Docker's among them).
_ZERO_IS_UNSET = frozenset(("shares", "quota", "period", "realtimePeriod", "realtimeRuntime"))

_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def settings(resources: Mapping[str, Any], exists: Callable[[str, str], bool]) -> list[Setting]:
    """What to write for `resources`, devices and `unified` apart, in order.

    `exists(controller, file)` tells whether the kernel has the file. The order between files of
    one controller may have to be another, depending on the values there; the caller tries again.

    Raises:
        RuntimeFailure: a value is outside of what the specification allows.
    """
    out: list[Setting] = []
    out += _memory(resources.get("memory") or {}, exists)
    cpu = resources.get("cpu") or {}
    for name, controller, file in _CPU:
        value = cpu.get(name)
        if value is None or value == "" or (value == 0 and name in _ZERO_IS_UNSET):
            continue
        out.append((controller, file, str(value)))
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        out.append(("pids", "pids.max", str(limit) if limit >= 0 else "max"))
    out += _blkio(resources.get("blockIO") or {}, exists)
    for entry in resources.get("hugepageLimits") or ():
        out += _hugetlb(entry, exists)
    out += _network(resources.get("network") or {})
    for device, limits in (resources.get("rdma") or {}).items():
        out.append(("rdma", "rdma.max", rdma_line(device, limits)))
    return out


def _memory(memory: Mapping[str, Any], exists: Callable[[str, str], bool]) -> list[Setting]:
    out: list[Setting] = []
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit == -1 and swap == 0 and exists("memory", "memory.memsw.limit_in_bytes"):
        swap = -1  # memory+swap below unlimited memory would be refused
    if limit:
        out.append(("memory", "memory.limit_in_bytes", str(limit)))
    if swap:
        out.append(("memory", "memory.memsw.limit_in_bytes", str(swap)))
    if reservation := memory.get("reservation") or 0:
        out.append(("memory", "memory.soft_limit_in_bytes", str(reservation)))
    if tcp := memory.get("kernelTCP") or 0:
        out.append(("memory", "memory.kmem.tcp.limit_in_bytes", str(tcp)))
    disable = memory.get("disableOOMKiller")
    if disable is not None and (disable or exists("memory", "memory.oom_control")):
        out.append(("memory", "memory.oom_control", "1" if disable else "0"))
    swappiness = memory.get("swappiness")
    # -1, and the same read as an unsigned 64-bit number, is Docker's "not set".
    if swappiness is not None and swappiness not in (-1, 0xFFFFFFFFFFFFFFFF):
        if not 0 <= swappiness <= 100:
            raise RuntimeFailure(
                "cgroup", f"invalid memory swappiness {swappiness}: it must be from 0 to 100"
            )
        out.append(("memory", "memory.swappiness", str(swappiness)))
    return out


def _blkio(block: Mapping[str, Any], exists: Callable[[str, str], bool]) -> list[Setting]:
    out: list[Setting] = []
    bfq = "bfq." if exists("blkio", "blkio.bfq.weight") else ""
    if weight := block.get("weight") or 0:
        out.append(("blkio", f"blkio.{bfq}weight", str(weight)))
    if leaf := block.get("leafWeight") or 0:
        out.append(("blkio", "blkio.leaf_weight", str(leaf)))
    for entry in block.get("weightDevice") or ():
        device = device_number(entry)
        if weight := entry.get("weight") or 0:
            out.append(("blkio", f"blkio.{bfq}weight_device", f"{device} {weight}"))
        if leaf := entry.get("leafWeight") or 0:
            out.append(("blkio", "blkio.leaf_weight_device", f"{device} {leaf}"))
    for name, file in _THROTTLES:
        for entry in block.get(name) or ():
            out.append(("blkio", file, f"{device_number(entry)} {entry['rate']}"))
    return out


def device_number(entry: Mapping[str, Any]) -> str:
    """`major:minor` of a block IO entry."""
    return f"{int(entry['major'])}:{int(entry['minor'])}"


def _hugetlb(entry: Mapping[str, Any], exists: Callable[[str, str], bool]) -> list[Setting]:
    size, limit = page_size(entry), str(entry["limit"])
    out = [("hugetlb", f"hugetlb.{size}.limit_in_bytes", limit)]
    if exists("hugetlb", f"hugetlb.{size}.rsvd.limit_in_bytes"):
        out.append(("hugetlb", f"hugetlb.{size}.rsvd.limit_in_bytes", limit))
    return out


def page_size(entry: Mapping[str, Any]) -> str:
    """A huge page limit's `pageSize`, which becomes part of a file name.

    Raises:
        RuntimeFailure: it is not a number with KB, MB or GB.
    """
    size = str(entry["pageSize"])
    if not size[:-2].isdigit() or size[-2:] not in ("KB", "MB", "GB"):
        raise RuntimeFailure("cgroup", f"invalid huge page size {size!r}")
    return size


def _network(network: Mapping[str, Any]) -> list[Setting]:
    out: list[Setting] = []
    if class_id := network.get("classID") or 0:
        out.append(("net_cls", "net_cls.classid", str(class_id)))
    for entry in network.get("priorities") or ():
        out.append(("net_prio", "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}"))
    return out


def rdma_line(device: str, limits: Mapping[str, Any]) -> str:
    """A line for rdma.max, the same on v1 and v2."""
    words = [device]
    if (handles := limits.get("hcaHandles")) is not None:
        words.append(f"hca_handle={handles}")
    if (objects := limits.get("hcaObjects")) is not None:
        words.append(f"hca_object={objects}")
    return " ".join(words)


def check_sections(resources: Mapping[str, Any]) -> None:
    """Refuse a section this does not know, rather than let a limit be lost.

    Raises:
        RuntimeFailure: such a section.
    """
    for name in resources:
        if name not in SECTIONS:
            raise RuntimeFailure("cgroup", f"unknown resource {name!r}")
