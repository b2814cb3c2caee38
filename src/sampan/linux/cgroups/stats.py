"""What a cgroup uses, read from either version's files into one value."""

from __future__ import annotations

from sampan.linux.cgroups.files import read_optional

_NS = 1_000_000_000
_TICK_NS = _NS // 100  # USER_HZ, which is 100 on every architecture we run on
_V1_UNLIMITED = 1 << 62


class BlockIO:
    """One count of bytes or requests: `operation` is `read`, `write`, `sync` …, in small letters."""

    __slots__ = ("major", "minor", "operation", "value")

    def __init__(self, major: int, minor: int, operation: str, value: int) -> None:
        self.major = major
        self.minor = minor
        self.operation = operation
        self.value = value


class CgroupStats:
    """Counters of one cgroup. What the kernel does not tell stays 0 or empty; -1 is "no limit".

    `memory` is memory.stat as the kernel has it; its names differ between v1 and v2 (`version`).
    """

    __slots__ = (
        "cpu_ns",
        "cpu_per_cpu_ns",
        "cpu_periods",
        "cpu_system_ns",
        "cpu_throttled_ns",
        "cpu_throttled_periods",
        "cpu_user_ns",
        "hugetlb_bytes",
        "io_bytes",
        "io_requests",
        "memory",
        "memory_failures",
        "memory_limit_bytes",
        "memory_maximum_bytes",
        "memory_swap_bytes",
        "memory_swap_limit_bytes",
        "memory_usage_bytes",
        "oom_kills",
        "pids",
        "pids_limit",
        "version",
    )

    def __init__(self, version: int) -> None:
        self.version = version
        self.cpu_ns = self.cpu_user_ns = self.cpu_system_ns = 0
        self.cpu_per_cpu_ns: list[int] = []
        self.cpu_periods = self.cpu_throttled_periods = self.cpu_throttled_ns = 0
        self.memory: dict[str, int] = {}
        self.memory_usage_bytes = self.memory_maximum_bytes = self.memory_failures = 0
        self.memory_limit_bytes = self.memory_swap_limit_bytes = -1
        self.memory_swap_bytes = self.oom_kills = 0
        self.pids = 0
        self.pids_limit = -1
        self.io_bytes: list[BlockIO] = []
        self.io_requests: list[BlockIO] = []
        self.hugetlb_bytes: dict[str, int] = {}


def flat_keyed(text: str | None) -> dict[str, int]:
    """`key number` lines; others (`key max`) are passed over."""
    values = {}
    for line in (text or "").splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            values[key] = int(value)
    return values


def limit(text: str | None) -> int:
    """A limit's number; -1 for none: `max`, v1's huge numbers, or no such file."""
    word = (text or "max").strip()
    if not word.isdigit():
        return -1
    value = int(word)
    return -1 if value >= _V1_UNLIMITED else value


def _count(text: str | None) -> int:
    word = (text or "").strip()
    return int(word) if word.isdigit() else 0


def read_v1(directories: dict[str, str]) -> CgroupStats:
    """The figures of a v1 cgroup; `directories` is controller → directory."""
    stats = CgroupStats(1)

    def read(controller: str, file: str) -> str | None:
        directory = directories.get(controller)
        return None if directory is None else read_optional(f"{directory}/{file}")

    stats.cpu_ns = _count(read("cpuacct", "cpuacct.usage"))
    stats.cpu_per_cpu_ns = [
        int(word) for word in (read("cpuacct", "cpuacct.usage_percpu") or "").split()
    ]
    split = flat_keyed(read("cpuacct", "cpuacct.stat"))
    stats.cpu_user_ns = split.get("user", 0) * _TICK_NS
    stats.cpu_system_ns = split.get("system", 0) * _TICK_NS
    throttling = flat_keyed(read("cpu", "cpu.stat"))
    stats.cpu_periods = throttling.get("nr_periods", 0)
    stats.cpu_throttled_periods = throttling.get("nr_throttled", 0)
    stats.cpu_throttled_ns = throttling.get("throttled_time", 0)

    stats.memory = flat_keyed(read("memory", "memory.stat"))
    stats.memory_usage_bytes = _count(read("memory", "memory.usage_in_bytes"))
    stats.memory_maximum_bytes = _count(read("memory", "memory.max_usage_in_bytes"))
    stats.memory_limit_bytes = limit(read("memory", "memory.limit_in_bytes"))
    stats.memory_failures = _count(read("memory", "memory.failcnt"))
    both = _count(read("memory", "memory.memsw.usage_in_bytes"))
    stats.memory_swap_bytes = max(0, both - stats.memory_usage_bytes)
    stats.memory_swap_limit_bytes = limit(read("memory", "memory.memsw.limit_in_bytes"))
    stats.oom_kills = flat_keyed(read("memory", "memory.oom_control")).get("oom_kill", 0)

    stats.pids = _count(read("pids", "pids.current"))
    stats.pids_limit = limit(read("pids", "pids.max"))
    stats.io_bytes = _blkio(read, "io_service_bytes")
    stats.io_requests = _blkio(read, "io_serviced")
    return stats


def _blkio(read: object, kind: str) -> list[BlockIO]:
    """BFQ's counters, or the throttling layer's where no device uses BFQ."""
    assert callable(read)
    for name in (f"blkio.bfq.{kind}_recursive", f"blkio.throttle.{kind}_recursive"):
        entries = []
        for line in (read("blkio", name) or "").splitlines():
            words = line.split()
            if len(words) == 3:  # the last line is `Total N`
                major, _, minor = words[0].partition(":")
                entries.append(BlockIO(int(major), int(minor), words[1].lower(), int(words[2])))
        if entries:
            return entries
    return []


_V2_IO = (
    ("rbytes", "read", True),
    ("wbytes", "write", True),
    ("rios", "read", False),
    ("wios", "write", False),
)


def read_v2(directory: str) -> CgroupStats:
    """The figures of the v2 cgroup `directory`."""
    stats = CgroupStats(2)

    def read(file: str) -> str | None:
        return read_optional(f"{directory}/{file}")

    cpu = flat_keyed(read("cpu.stat"))
    stats.cpu_ns = cpu.get("usage_usec", 0) * 1000
    stats.cpu_user_ns = cpu.get("user_usec", 0) * 1000
    stats.cpu_system_ns = cpu.get("system_usec", 0) * 1000
    stats.cpu_periods = cpu.get("nr_periods", 0)
    stats.cpu_throttled_periods = cpu.get("nr_throttled", 0)
    stats.cpu_throttled_ns = cpu.get("throttled_usec", 0) * 1000

    stats.memory = flat_keyed(read("memory.stat"))
    stats.memory_usage_bytes = _count(read("memory.current"))
    stats.memory_maximum_bytes = _count(read("memory.peak"))
    stats.memory_limit_bytes = limit(read("memory.max"))
    stats.memory_swap_bytes = _count(read("memory.swap.current"))
    stats.memory_swap_limit_bytes = limit(read("memory.swap.max"))
    events = flat_keyed(read("memory.events"))
    stats.memory_failures = events.get("max", 0)
    stats.oom_kills = events.get("oom_kill", 0)

    stats.pids = _count(read("pids.current"))
    stats.pids_limit = limit(read("pids.max"))
    for line in (read("io.stat") or "").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for key, operation, is_bytes in _V2_IO:
            if key in values:
                entry = BlockIO(int(major), int(minor), operation, int(values[key]))
                (stats.io_bytes if is_bytes else stats.io_requests).append(entry)
    return stats
