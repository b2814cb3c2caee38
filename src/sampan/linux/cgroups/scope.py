"""Cgroups that systemd makes: `slice:prefix:name` → a transient scope unit.

Source: systemd.resource-control(5), org.freedesktop.systemd1(5) "StartTransientUnit"; the path's
form is runc's `--systemd-cgroup`.
"""

from __future__ import annotations

import os

from sampan.errors import RuntimeFailure
from sampan.linux.cgroups import devices, files, v2_resources
from sampan.linux.cgroups.base import Cgroup, Gate
from sampan.linux.cgroups.systemd_bus import PRIVATE_SOCKET, Manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.linux.cgroups.layout import Layout
    from sampan.linux.cgroups.stats import CgroupStats
    from sampan.linux.cgroups.systemd_bus import Property

DEFAULT_SLICE = "system.slice"
_INFINITY = (1 << 64) - 1


def unit_path(path: str) -> tuple[str, str]:
    """The unit's name and its cgroup path for `slice:prefix:name`.

    An empty slice is system.slice; a name that ends in `.slice` is that slice itself.

    Raises:
        RuntimeFailure: it has not three parts, or one is not a name.
    """
    parts = path.split(":")
    if len(parts) != 3 or not parts[2] or "/" in path or "\0" in path or "\n" in path:
        raise RuntimeFailure(
            "cgroup",
            f"expected cgroupsPath to be of format slice:prefix:name for systemd cgroups, "
            f"got {path!r} instead",
            path=path,
        )
    parent, prefix, name = parts
    if name.endswith(".slice"):
        return name, expand_slice(name)
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return unit, f"{expand_slice(parent or DEFAULT_SLICE)}/{unit}"


def expand_slice(name: str) -> str:
    """A slice's cgroup path: `a-b.slice` → `/a.slice/a-b.slice`; `-.slice` is the top.

    Source: systemd.slice(5).

    Raises:
        RuntimeFailure: it is no slice's name.
    """
    stem = name.removesuffix(".slice")
    if name == "-.slice":
        return ""
    if stem == name or not all(stem.split("-")):
        raise RuntimeFailure("cgroup", f"invalid slice name {name!r}")
    path, prefix = "", ""
    for word in stem.split("-"):
        prefix = f"{prefix}-{word}" if prefix else word
        path += f"/{prefix}.slice"
    return path


def open_scope(path: str, layout: Layout) -> Cgroup:
    """The cgroup of the scope that `path` names.

    Raises:
        RuntimeFailure: the path is malformed, or systemd does not run here.
    """
    unit, cgroup_path = unit_path(path)
    if not os.path.isdir("/run/systemd/system"):
        raise RuntimeFailure(
            "cgroup", "systemd cgroups were asked for, but systemd does not run here"
        )
    return ScopeCgroup(unit, pick(layout, cgroup_path, {}), 2 if layout.mode == "unified" else 1)


def pick(layout: Layout, path: str, own: dict[str, str]) -> Cgroup:
    """As `manager.pick`, which imports this module."""
    from sampan.linux.cgroups import manager

    return manager.pick(layout, path, own)


class ScopeCgroup(Cgroup):
    """A cgroup in a scope of systemd's, which knows its limits too and does not undo them.

    systemd makes a scope around a process that exists, in `adopt`; the process is then in it.
    """

    __slots__ = ("_bus", "_inner", "_unit", "_version", "path")

    def __init__(self, unit: str, inner: Cgroup, version: int, bus: str = PRIVATE_SOCKET) -> None:
        self.path = inner.path
        self._unit = unit
        self._inner = inner
        self._version = version
        self._bus = bus

    def adopt(self, pid: int) -> None:
        if self._unit.endswith(".slice"):
            return
        parent = self.path.rpartition("/")[0].rpartition("/")[2] or "-.slice"
        properties: list[Property] = [
            ("Description", "s", f"container {self._unit}"),
            ("Slice", "s", parent),
            ("Delegate", "b", True),
            ("PIDs", "au", [pid]),
            ("DefaultDependencies", "b", False),
            ("CollectMode", "s", "inactive-or-failed"),
            ("MemoryAccounting", "b", True),
            ("CPUAccounting", "b", True),
            ("TasksAccounting", "b", True),
            ("IOAccounting" if self._version == 2 else "BlockIOAccounting", "b", True),
        ]
        with Manager(self._bus) as manager:
            manager.start_transient_unit(self._unit, properties)

    def apply(self, resources: Mapping[str, Any]) -> None:
        if found := unit_properties(resources, self._version):
            with Manager(self._bus) as manager:
                manager.set_unit_properties(self._unit, found)
        self._inner.apply(resources)

    def create(self) -> None:
        self._inner.create()

    def add(self, pid: int) -> None:
        self._inner.add(pid)

    def clone_into(self) -> int | None:
        return None

    def gate(self, *, made: bool = False) -> Gate:
        return self._inner.gate(made=made)

    def delegate(self, uid: int) -> None:
        self._inner.delegate(uid)

    def paths(self) -> dict[str, str]:
        return self._inner.paths()

    def exists(self) -> bool:
        return self._inner.exists()

    def freeze(self) -> None:
        self._inner.freeze()

    def thaw(self) -> None:
        self._inner.thaw()

    def frozen(self) -> bool:
        return self._inner.frozen()

    def processes(self, *, recursive: bool = True) -> list[int]:
        return self._inner.processes(recursive=recursive)

    def kill(self, signal: int = 9) -> None:
        self._inner.kill(signal)

    def delete(self) -> None:
        self._inner.delete()

    def stats(self) -> CgroupStats:
        return self._inner.stats()

    def oom_kills(self) -> int:
        return self._inner.oom_kills()


def unit_properties(resources: Mapping[str, Any], version: int) -> list[Property]:
    """What systemd has to know of `resources`, lest it resets them when it reloads its units.

    Source: systemd.resource-control(5), and the types in org.freedesktop.systemd1(5).
    """
    out: list[Property] = []
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    if limit := memory.get("limit") or 0:
        out.append(("MemoryMax" if version == 2 else "MemoryLimit", "t", _unsigned(limit)))
    if version == 2:
        if swap := v2_resources.swap_maximum(limit, memory.get("swap") or 0):
            out.append(("MemorySwapMax", "t", _INFINITY if swap == "max" else int(swap)))
        if (low := memory.get("reservation") or 0) > 0:
            out.append(("MemoryLow", "t", low))
    if shares := cpu.get("shares") or 0:
        weight = ("CPUWeight", "t", v2_resources.cpu_weight(shares))
        out.append(weight if version == 2 else ("CPUShares", "t", shares))
    if quota := cpu.get("quota") or 0:
        period = cpu.get("period") or v2_resources.DEFAULT_PERIOD_US
        share = quota * 1_000_000 // period if quota > 0 else _INFINITY
        # systemd keeps it in steps of 10 ms of a second
        out.append(("CPUQuotaPerSecUSec", "t", share if quota < 0 else -(-share // 10000) * 10000))
        out.append(("CPUQuotaPeriodUSec", "t", period))
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        out.append(("TasksMax", "t", _unsigned(limit)))
    if resources.get("devices"):
        out += _device_properties(devices.parse_rules(resources["devices"]))
    return out


def _unsigned(value: int) -> int:
    return value if value >= 0 else _INFINITY


def _device_properties(rules: list[devices.Rule]) -> list[Property]:
    """systemd has only lists of what is allowed; our own filter or list decides what is."""
    allowed = devices.to_exceptions(rule for rule in rules if rule.allow or rule.kind == "a")
    if allowed.allow_default:
        return [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]
    names = _driver_names(files.read_optional("/proc/devices") or "")
    entries = []
    for (kind, major, minor), access in allowed.entries.items():
        word = "char" if kind == "c" else "block"
        if minor != devices.ANY:
            name: str | None = f"/dev/{word}/{major}:{minor}"
        elif major != devices.ANY:
            name = names.get((word, major))
            name = name and f"{word}-{name}"
        else:
            name = f"{word}-*"
        if name:
            entries.append((name, devices.format_entry((kind, 0, 0), access).rpartition(" ")[2]))
    return [("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", entries)]


def _driver_names(text: str) -> dict[tuple[str, int], str]:
    """(kind, major) → driver in the text of /proc/devices."""
    names: dict[tuple[str, int], str] = {}
    kind = ""
    for line in text.splitlines():
        words = line.split()
        if line.endswith("devices:"):
            kind = "char" if words[0] == "Character" else "block"
        elif len(words) == 2:
            names[kind, int(words[0])] = words[1]
    return names
