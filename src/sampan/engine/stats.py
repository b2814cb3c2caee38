"""What a running container uses, second by second, in the shape of Docker's `stats`.

A sample reads a dozen small files of the container's cgroup, /proc/stat and the network devices of its
first process. Nothing is read for a container that nobody watches. Each watcher keeps its own second,
so that a hundred of them spread their samples over it.

Source: engine-api-v1.55.yaml, ContainerStatsResponse; proc_stat(5), proc_pid_net(5).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from sampan.engine.container import Container
from sampan.engine.networking import Networking
from sampan.engine.registry import Registry
from sampan.linux import sysinfo
from sampan.linux.cgroups.manager import open_cgroup
from sampan.linux.cgroups.stats import BlockIO, CgroupStats
from sampan.oci.go_time import ZERO_TIME_NS, format_time

INTERVAL_S = 1.0

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_CPU_FIELDS = 7  # user nice system idle iowait irq softirq: those that Docker adds up

Document = dict[str, Any]


class Stats:
    """The figures of one engine's containers."""

    def __init__(self, registry: Registry, networking: Networking) -> None:
        self._registry = registry
        self._networking = networking
        machine = sysinfo.system_info()
        self._memory_bytes = machine.memory_bytes
        self._cpus = machine.cpus

    async def once(self, reference: str, *, one_shot: bool = False) -> Document:
        """One document; unless `one_shot` it comes after a second, with that second's beginning in it.

        Raises:
            NotFound: there is no such container.
        """
        container = self._registry.find(reference)
        document = self._sample(container, None)
        if one_shot or not container.state.running:
            return document
        await asyncio.sleep(INTERVAL_S)
        return self._sample(container, document)

    async def stream(self, reference: str) -> AsyncIterator[Document]:
        """A document a second, until the container is removed; without figures while it does not run.

        Raises:
            NotFound: there is no such container.
        """
        container = self._registry.find(reference)
        previous: Document | None = None
        due = time.monotonic()
        while self._registry.holds(container):
            previous = self._sample(container, previous)
            yield previous
            due = max(due + INTERVAL_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _sample(self, container: Container, previous: Document | None) -> Document:
        if not container.state.running:
            return _nothing(container)
        figures = open_cgroup(container.record.cgroup_path).stats()
        document = _nothing(container) | {
            "read": format_time(time.time_ns()),
            "pids_stats": _without_zeros(
                {"current": figures.pids, "limit": max(0, figures.pids_limit)}
            ),
            "blkio_stats": _block_io(figures),
            "cpu_stats": _cpu(figures, self._cpus),
            "memory_stats": self._memory(figures),
        }
        if previous is not None and "system_cpu_usage" in previous["cpu_stats"]:
            document["preread"] = previous["read"]
            document["precpu_stats"] = previous["cpu_stats"]
        if self._networking.has_devices(container):
            document["networks"] = network_devices(container.state.pid)
        return document

    def _memory(self, figures: CgroupStats) -> Document:
        limit = figures.memory_limit_bytes
        document = {
            "usage": figures.memory_usage_bytes,
            "stats": figures.memory,
            "limit": limit if 0 <= limit < self._memory_bytes else self._memory_bytes,
        }
        if figures.version == 1:
            document["max_usage"] = figures.memory_maximum_bytes
            if figures.memory_failures:
                document["failcnt"] = figures.memory_failures
        return document


def _nothing(container: Container) -> Document:
    """What is said of a container that does not run."""
    return {
        "read": _NEVER,
        "preread": _NEVER,
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLOCK_IO),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _NO_CPU,
        "precpu_stats": _NO_CPU,
        "memory_stats": {},
        "name": f"/{container.name}",
        "id": container.id,
        "os_type": "linux",
    }


_NEVER = format_time(ZERO_TIME_NS)
_NO_CPU: Document = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}

_BLOCK_IO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


def _cpu(figures: CgroupStats, cpus: int) -> Document:
    usage: Document = {"total_usage": figures.cpu_ns}
    if figures.cpu_per_cpu_ns:
        usage["percpu_usage"] = figures.cpu_per_cpu_ns
    usage["usage_in_kernelmode"] = figures.cpu_system_ns
    usage["usage_in_usermode"] = figures.cpu_user_ns
    return {
        "cpu_usage": usage,
        "system_cpu_usage": system_cpu_ns(),
        "online_cpus": len(figures.cpu_per_cpu_ns) or cpus,
        "throttling_data": {
            "periods": figures.cpu_periods,
            "throttled_periods": figures.cpu_throttled_periods,
            "throttled_time": figures.cpu_throttled_ns,
        },
    }


def _block_io(figures: CgroupStats) -> Document:
    """Version 2 has no counts but these, and Docker shows only the first of them."""
    document: Document = dict.fromkeys(_BLOCK_IO, None if figures.version == 2 else [])
    document["io_service_bytes_recursive"] = [_entry(item) for item in figures.io_bytes]
    if figures.version == 1:
        document["io_serviced_recursive"] = [_entry(item) for item in figures.io_requests]
    return document


def _entry(item: BlockIO) -> Document:
    return {"major": item.major, "minor": item.minor, "op": item.operation, "value": item.value}


def _without_zeros(document: Document) -> Document:
    return {key: value for key, value in document.items() if value}


def system_cpu_ns() -> int:
    """The CPU time of the whole machine, all CPUs, idle time included: proc_stat(5)."""
    with open("/proc/stat", "rb", buffering=0) as file:
        words = file.read(512).split(b"\n", 1)[0].split()
    return sum(map(int, words[1 : 1 + _CPU_FIELDS])) * _NS_PER_TICK


def network_devices(pid: int) -> dict[str, dict[str, int]]:
    """The counters of a process's network devices but the loopback; none if it has just ended."""
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return {}
    devices = {}
    for line in lines:
        name, _, counters = line.partition(":")
        values = list(map(int, counters.split()))
        if name.strip() != "lo":
            devices[name.strip()] = {
                f"{direction}_{kind}": values[first + offset]
                for direction, first in (("rx", 0), ("tx", 8))
                for offset, kind in enumerate(("bytes", "packets", "errors", "dropped"))
            }
    return devices
