"""What this kernel and machine can do: for `info`, `features` and warnings about limits.

Everything is read from files when asked for; nothing is changed, and what cannot be read counts as
not there.
"""

from __future__ import annotations

import os

from sampan.linux.cgroups.files import read_optional
from sampan.linux.cgroups.layout import layout, own_path, parse_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.linux.cgroups.layout import Layout

_PROBE_V1 = {
    "memory_limit": ("memory", "memory.limit_in_bytes"),
    "swap_limit": ("memory", "memory.memsw.limit_in_bytes"),
    "memory_reservation": ("memory", "memory.soft_limit_in_bytes"),
    "memory_swappiness": ("memory", "memory.swappiness"),
    "oom_kill_disable": ("memory", "memory.oom_control"),
    "kernel_memory_tcp": ("memory", "memory.kmem.tcp.limit_in_bytes"),
    "cpu_shares": ("cpu", "cpu.shares"),
    "cpu_cfs_period": ("cpu", "cpu.cfs_period_us"),
    "cpu_cfs_quota": ("cpu", "cpu.cfs_quota_us"),
    "cpu_realtime": ("cpu", "cpu.rt_period_us"),
    "cpuset": ("cpuset", "cpuset.cpus"),
    "blkio_throttle": ("blkio", "blkio.throttle.read_bps_device"),
    "devices": ("devices", "devices.list"),
}
_V2_CONTROLLER = {
    "memory_limit": "memory",
    "swap_limit": "memory",
    "memory_reservation": "memory",
    "cpu_shares": "cpu",
    "cpu_cfs_period": "cpu",
    "cpu_cfs_quota": "cpu",
    "cpuset": "cpuset",
    "pids_limit": "pids",
    "blkio_throttle": "io",
}


class CgroupSupport:
    """Which limits cgroups can set here; each a bool. `cpus` and `mems` are this machine's sets."""

    __slots__ = (
        "blkio_throttle",
        "blkio_weight",
        "cpu_cfs_period",
        "cpu_cfs_quota",
        "cpu_realtime",
        "cpu_shares",
        "cpus",
        "cpuset",
        "devices",
        "kernel_memory_tcp",
        "memory_limit",
        "memory_reservation",
        "memory_swappiness",
        "mems",
        "mode",
        "oom_kill_disable",
        "pids_limit",
        "swap_limit",
        "version",
    )

    memory_limit: bool
    swap_limit: bool
    memory_reservation: bool
    memory_swappiness: bool
    oom_kill_disable: bool
    kernel_memory_tcp: bool
    cpu_shares: bool
    cpu_cfs_period: bool
    cpu_cfs_quota: bool
    cpu_realtime: bool
    cpuset: bool
    pids_limit: bool
    blkio_weight: bool
    blkio_throttle: bool
    devices: bool
    cpus: str
    mems: str

    def __init__(self, where: Layout, own: dict[str, str]) -> None:
        self.mode = where.mode
        self.version = 2 if where.mode == "unified" else 1
        if self.version == 2:
            self._probe_v2(where, own)
        else:
            self._probe_v1(where, own)
        if not self.cpus:
            self.cpus = _online("cpu")
        if not self.mems:
            self.mems = _online("node")

    def _probe_v1(self, where: Layout, own: dict[str, str]) -> None:
        directories = {
            name: hierarchy.root + own_path(own, hierarchy.controllers, hierarchy.mount_root)
            for hierarchy in where.hierarchies
            for name in hierarchy.controllers
        }
        tops = {name: each.root for each in where.hierarchies for name in each.controllers}

        def has(controller: str, *names: str) -> bool:
            # Files that the top cgroup lacks (or only it has) are looked for in both places.
            return any(
                os.path.exists(f"{directory}/{name}")
                for directory in (directories.get(controller), tops.get(controller))
                if directory is not None
                for name in names
            )

        for field, (controller, name) in _PROBE_V1.items():
            setattr(self, field, has(controller, name))
        self.pids_limit = "pids" in directories  # the top cgroup has no pids.max
        self.blkio_weight = has("blkio", "blkio.weight", "blkio.bfq.weight")
        cpuset = directories.get("cpuset", "")
        self.cpus = _line(f"{cpuset}/cpuset.effective_cpus")
        self.mems = _line(f"{cpuset}/cpuset.effective_mems")

    def _probe_v2(self, where: Layout, own: dict[str, str]) -> None:
        root = where.unified or ""
        directory = root + own_path(own, ("",), where.unified_mount_root)
        available = (read_optional(root + "/cgroup.controllers") or "").split()
        for field in _PROBE_V1:
            setattr(self, field, False)
        for field, controller in _V2_CONTROLLER.items():
            setattr(self, field, controller in available)
        self.swap_limit = self.memory_limit and _v2_swap(root, directory)
        self.blkio_weight = "io" in available and _v2_file(root, directory, "io", ".weight")
        self.devices = True
        self.cpus = _line(f"{directory}/cpuset.cpus.effective")
        self.mems = _line(f"{directory}/cpuset.mems.effective")
        if not self.cpus:
            self.cpus = _line(f"{root}/cpuset.cpus.effective")
            self.mems = _line(f"{root}/cpuset.mems.effective")


def _v2_swap(root: str, directory: str) -> bool:
    """Whether memory.swap.max is there; cgroups below the top have it, if the kernel does."""
    if directory != root and os.path.exists(directory + "/memory.current"):
        return os.path.exists(directory + "/memory.swap.max")
    children = _children_with(root, "memory.current")
    return not children or os.path.exists(children[0] + "/memory.swap.max")


def _v2_file(root: str, directory: str, prefix: str, suffix: str) -> bool:
    places = [directory, *_children_with(root, "io.max")]
    return any(
        name.startswith(prefix + ".") and name.endswith(suffix)
        for place in places
        for name in _names(place)
    )


def _children_with(root: str, file: str) -> list[str]:
    return [f"{root}/{name}" for name in _names(root) if os.path.exists(f"{root}/{name}/{file}")][
        :1
    ]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _line(path: str) -> str:
    return (read_optional(path) or "").strip()


def _online(kind: str) -> str:
    return _line(f"/sys/devices/system/{kind}/online") or "0"


def cgroup_support() -> CgroupSupport:
    """What the cgroup hierarchies here can limit.

    Raises:
        Unsupported: no cgroup hierarchy is mounted.
    """
    return CgroupSupport(layout(), parse_own(read_optional("/proc/self/cgroup") or ""))


def parse_set(text: str) -> set[int]:
    """The numbers of a list as cpuset(7) has it: `0-3,7` → {0, 1, 2, 3, 7}.

    Raises:
        ValueError: it is none, or has a number above 8191 (CONFIG_NR_CPUS' greatest).
    """
    numbers: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.partition("-")
        first, last = int(low), int(high if dash else low)
        if not 0 <= first <= last <= 8191:
            raise ValueError(f"invalid range {part!r}")
        numbers.update(range(first, last + 1))
    return numbers


class SystemInfo:
    """The machine, in `docker info`'s terms."""

    __slots__ = (
        "apparmor",
        "architecture",
        "cpus",
        "ipv4_forwarding",
        "kernel_version",
        "memory_bytes",
        "name",
        "operating_system",
        "operating_system_version",
        "seccomp",
        "selinux",
        "swap_bytes",
    )

    def __init__(self) -> None:
        names = os.uname()
        self.name = names.nodename
        self.kernel_version = names.release
        self.architecture = names.machine
        self.cpus = len(os.sched_getaffinity(0))
        meminfo = _meminfo(read_optional("/proc/meminfo") or "")
        self.memory_bytes = meminfo.get("MemTotal", 0)
        self.swap_bytes = meminfo.get("SwapTotal", 0)
        release = parse_os_release(
            read_optional("/etc/os-release") or read_optional("/usr/lib/os-release") or ""
        )
        self.operating_system = release.get("PRETTY_NAME") or "Linux"
        self.operating_system_version = release.get("VERSION_ID", "")
        self.apparmor = _line("/sys/module/apparmor/parameters/enabled") == "Y"
        self.selinux = os.path.exists("/sys/fs/selinux/enforce")
        self.seccomp = os.path.exists("/proc/sys/kernel/seccomp/actions_avail")
        self.ipv4_forwarding = _line("/proc/sys/net/ipv4/ip_forward") == "1"


def system_info() -> SystemInfo:
    """This machine as it is now."""
    return SystemInfo()


def _meminfo(text: str) -> dict[str, int]:
    """name → bytes in the text of /proc/meminfo; see proc(5)."""
    values = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            values[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return values


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments of os-release(5), quotes taken off."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        for escaped in ('"', "'", "$", "`", "\\"):
            value = value.replace("\\" + escaped, escaped)
        values[name] = value
    return values
