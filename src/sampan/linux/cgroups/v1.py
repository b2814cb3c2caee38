"""Cgroup v1, one directory a hierarchy; beside a v2 tree (hybrid) one directory there too."""

from __future__ import annotations

import os
import select
import time
from errno import EBUSY, EINVAL

from sampan.errors import RuntimeFailure
from sampan.linux.cgroups import devices, files, layout, tree, v1_resources
from sampan.linux.cgroups.base import Cgroup, Gate
from sampan.linux.cgroups.v2 import CgroupV2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.linux.cgroups.layout import Layout
    from sampan.linux.cgroups.stats import CgroupStats
    from sampan.linux.cgroups.v1_resources import Setting

_DELETE_S = 10.0
_FREEZE_S = 5.0
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# Controllers that hybrid layouts may leave to the v2 tree, by the section that needs them.
_LEFT_TO_V2 = (("hugepageLimits", "hugetlb"), ("rdma", "rdma"))


class GateV1(Gate):
    """Enters by writing 0 to `tasks`.

    The kernel moves a task that asks for itself without waiting for an RCU grace period; any other
    ID takes cgroup_threadgroup_rwsem for writing (cgroup_procs_write_start, Linux 5.4 and later).
    """

    __slots__ = ()

    def enter(self) -> None:
        for fd, path in self._entries:
            try:
                if path is None:
                    os.write(fd, b"0")
                    continue
                tasks = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
                try:
                    os.write(tasks, b"0")
                finally:
                    os.close(tasks)
            except OSError as error:
                path = path or os.readlink(f"/proc/self/fd/{fd}")
                raise files.failure(error, f"enter cgroup {path}", path) from error

    def close(self) -> None:
        entries, self._entries = self._entries, []
        for fd, _ in entries:
            os.close(fd)


class CgroupV1(Cgroup):
    """See Cgroup. `own` is where a relative path counts from, by controller; empty otherwise."""

    __slots__ = ("_directories", "_roots", "_unified", "path")

    def __init__(self, where: Layout, path: str, own: Mapping[str, str] | None = None) -> None:
        self.path = path
        self._directories: dict[str, str] = {}
        self._roots: list[tuple[str, str]] = []
        for hierarchy in where.hierarchies:
            names, root = hierarchy.controllers, hierarchy.root
            if own:
                root += layout.own_path(dict(own), names, hierarchy.mount_root)
            self._roots.append((root, names[0]))
            for name in names:
                self._directories[name] = root + path
        self._unified: CgroupV2 | None = None
        if where.unified is not None:
            self._unified = CgroupV2(where.unified, path, hybrid=True)

    # Making and entering

    def create(self) -> None:
        for root, name in self._roots:
            directory = root + self.path
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                pass
            except FileNotFoundError:
                self._create_parents(root, name)
                files.make_directories(root, self.path)
            except OSError as error:
                raise files.failure(error, f"create cgroup {directory}", directory) from error
            if name == "cpuset":
                _fill_cpuset(directory)
        if self._unified is not None:
            self._unified.create()

    def _create_parents(self, root: str, name: str) -> None:
        parent, directory = root, ""
        for part in self.path.split("/")[1:-1]:
            directory = f"{parent}/{part}"
            made = files.make_directory(directory)
            if made and name == "cpuset":
                _fill_cpuset(directory)
                # Children made from now on take over cpus and mems without two writes each.
                files.write(directory + "/cgroup.clone_children", "1")
            parent = directory

    def gate(self, *, made: bool = False) -> Gate:
        entries: list[tuple[int, str | None]] = []
        try:
            for root, controller in self._roots:
                if made:
                    path = f"{root}{self.path}/tasks"
                    entries.append((os.open(path, os.O_WRONLY | os.O_CLOEXEC), None))
                else:
                    path, _, name = (root + self.path).rpartition("/")
                    entries.append((self._open_parent(path, root, controller), name + "/tasks"))
        except OSError as error:
            GateV1(entries).close()
            raise files.failure(error, f"open cgroup {path}", path) from error
        return GateV1(entries)

    def _open_parent(self, path: str, root: str, controller: str) -> int:
        try:
            return os.open(path, _DIRECTORY)
        except FileNotFoundError:
            self._create_parents(root, controller)
            return os.open(path, _DIRECTORY)

    def clone_into(self) -> int | None:
        return None if self._unified is None else self._unified.clone_into()

    def add(self, pid: int) -> None:
        for root, _ in self._roots:
            files.write(f"{root}{self.path}/cgroup.procs", str(pid))
        if self._unified is not None:
            self._unified.add(pid)

    def paths(self) -> dict[str, str]:
        paths = dict(self._directories)
        if self._unified is not None:
            paths.update(self._unified.paths())
        return paths

    def exists(self) -> bool:
        return os.path.isdir(self._primary())

    # Limits

    def apply(self, resources: Mapping[str, Any]) -> None:
        v1_resources.check_sections(resources)
        resources = self._apply_unified(resources)
        settings = v1_resources.settings(resources, self._exists)
        refused = [item for item in settings if not self._write(item, again=True)]
        for item in refused:
            self._write(item, again=False)
        if resources.get("devices"):
            self._apply_devices(resources["devices"])

    def _apply_unified(self, resources: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give the v2 tree its part; return the rest."""
        names = [
            section
            for section, controller in _LEFT_TO_V2
            if resources.get(section) and controller not in self._directories
        ]
        if resources.get("unified"):
            names.append("unified")
        if not names:
            return resources
        if self._unified is None:
            if "unified" in names:
                raise RuntimeFailure("cgroup", "unified resources need cgroup v2")
            return resources
        self._unified.apply({name: resources[name] for name in names})
        return {name: value for name, value in resources.items() if name not in names}

    def _exists(self, controller: str, file: str) -> bool:
        directory = self._directories.get(controller)
        return directory is not None and os.path.exists(f"{directory}/{file}")

    def _write(self, setting: Setting, *, again: bool) -> bool:
        """Write one setting. With `again`, False if its siblings may have to change first.

        memory+swap may not go below memory nor a quota below its burst, at any moment, so which
        comes first depends on the values that are there.
        """
        controller, file, value = setting
        directory = self._directories.get(controller)
        if directory is None:
            raise RuntimeFailure(
                "cgroup", f"cannot set {file}: this machine has no {controller} cgroup controller"
            )
        path = f"{directory}/{file}"
        try:
            files.write_raw(path, value.encode())
        except OSError as error:
            if error.errno == EINVAL and again:
                return False
            if error.errno == EBUSY and file == "memory.limit_in_bytes":
                raise self._memory_busy(error, directory, value) from error
            raise files.failure(error, f"write {value!r} to {path}", path) from error
        return True

    @staticmethod
    def _memory_busy(error: OSError, directory: str, value: str) -> RuntimeFailure:
        usage = files.read(directory + "/memory.usage_in_bytes").strip()
        peak = files.read(directory + "/memory.max_usage_in_bytes").strip()
        text = f"unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})"
        return files.failure(error, text, directory + "/memory.limit_in_bytes")

    def _apply_devices(self, entries: list[Mapping[str, Any]]) -> None:
        directory = self._directories.get("devices")
        if directory is None:
            raise RuntimeFailure(
                "cgroup", "cannot restrict devices: no devices cgroup controller is mounted"
            )
        target = devices.to_exceptions(devices.parse_rules(entries))
        current = devices.parse_list(files.read(directory + "/devices.list"))
        fds: dict[str, int] = {}
        try:
            for file, line in devices.changes(current, target):
                path = f"{directory}/{file}"
                try:
                    if file not in fds:
                        fds[file] = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                    os.write(fds[file], line.encode())
                except OSError as error:
                    raise files.failure(error, f"write {line!r} to {path}", path) from error
        finally:
            for fd in fds.values():
                os.close(fd)

    # Processes

    def _primary(self) -> str:
        """The directory that stands for all: the freezer's, for `kill` stops what it lists."""
        directories = self._directories
        return directories.get("freezer") or directories.get("devices") or self._first()

    def _first(self) -> str:
        return self._roots[0][0] + self.path

    def processes(self, *, recursive: bool = True) -> list[int]:
        return tree.processes(self._primary(), recursive)

    def freeze(self) -> None:
        if not self._freeze(_FREEZE_S):
            self.thaw()
            raise RuntimeFailure("cgroup", f"cannot freeze {self.path}: its processes do not stop")

    def _freeze(self, timeout_s: float) -> bool:
        """Ask for FROZEN until it is so. A fork under way can undo it, and v1 has no event."""
        path = self._freezer_state()
        deadline = time.monotonic() + timeout_s
        while True:
            files.write(path, "FROZEN")
            if files.read(path) == "FROZEN\n":
                return True
            if time.monotonic() >= deadline:
                return False
            select.poll().poll(1)

    def thaw(self) -> None:
        files.write(self._freezer_state(), "THAWED")

    def frozen(self) -> bool:
        text = files.read_optional(self._freezer_state())
        return text is not None and text != "THAWED\n"

    def _freezer_state(self) -> str:
        directory = self._directories.get("freezer")
        if directory is None:
            raise RuntimeFailure("cgroup", "this machine has no freezer cgroup controller")
        return directory + "/freezer.state"

    def kill(self, signal: int = 9) -> None:
        if signal == 9 and self._kill_by_v2():
            return
        if "freezer" not in self._directories:
            tree.send(self.processes(), signal)
            return
        if not self.exists():
            return
        frozen = self.frozen()
        self._freeze(0.5)  # a process that does not stop is signalled all the same
        try:
            tree.send(self.processes(), signal)
        finally:
            if signal == 9 or not frozen:
                self.thaw()

    def _kill_by_v2(self) -> bool:
        """Kill through the v2 tree, if all processes are there; then thaw, or they cannot die."""
        if self._unified is None or not self._unified.can_kill():
            return False
        pids = self.processes()  # before the v2 list: one forked in between is then only in that
        if not set(pids) <= set(self._unified.processes()):
            return False
        self._unified.kill()
        if pids and self.frozen():
            self.thaw()
        return True

    # End and figures

    def delete(self) -> None:
        deadline = time.monotonic() + _DELETE_S
        for root, _ in self._roots:
            tree.remove(root + self.path, deadline)
        if self._unified is not None:
            self._unified.delete()

    def stats(self) -> CgroupStats:
        from sampan.linux.cgroups.stats import read_v1

        return read_v1(self._directories)

    def oom_kills(self) -> int:
        directory = self._directories.get("memory")
        text = files.read_optional(f"{directory}/memory.oom_control") if directory else None
        _, found, count = (text or "").partition("oom_kill ")
        return int(count.split()[0]) if found else 0


def _fill_cpuset(directory: str) -> None:
    """Give an empty cpuset its parent's CPUs and memory nodes, or no process may enter it."""
    if files.read(directory + "/cpuset.mems").strip():
        return
    parent = directory.rpartition("/")[0]
    for file in ("cpuset.cpus", "cpuset.mems"):
        value = files.read(f"{parent}/{file}").strip()
        if not value:
            _fill_cpuset(parent)
            value = files.read(f"{parent}/{file}").strip()
        files.write(f"{directory}/{file}", value)
