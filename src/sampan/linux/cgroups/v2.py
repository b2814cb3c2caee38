"""Cgroup v2: one directory in the one tree. Beside v1 hierarchies (hybrid) as well, where few or no
controllers are in it and it serves for killing and for `unified` resources."""

from __future__ import annotations

import os
import time
from errno import EINVAL, ENOENT

from sampan.errors import RuntimeFailure
from sampan.linux.cgroups import files, tree, v2_resources
from sampan.linux.cgroups.base import Cgroup, Gate
from sampan.linux.cgroups.v1_resources import check_sections

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from sampan.linux.cgroups.stats import CgroupStats
    from sampan.linux.cgroups.v2_resources import Setting

_DELETE_S = 10.0
_FREEZE_S = 5.0
_DELEGATE = "/sys/kernel/cgroup/delegate"
_DELEGATED = "cgroup.procs cgroup.subtree_control cgroup.threads"


class GateV2(Gate):
    """Nothing to do: the process was cloned into its cgroup."""

    __slots__ = ()

    def enter(self) -> None:
        return

    def close(self) -> None:
        return


class CgroupV2(Cgroup):
    """See Cgroup. `root` is the mount point; in a hybrid layout controllers are enabled on need."""

    __slots__ = ("_directory", "_hybrid", "_root", "path")

    def __init__(self, root: str, path: str, *, hybrid: bool = False) -> None:
        self.path = path
        self._root = root
        self._directory = root + path
        self._hybrid = hybrid

    # Making and entering

    def create(self) -> None:
        self._make()
        if not self._hybrid:
            self._enable(v2_resources.CONTROLLERS)

    def _make(self) -> None:
        try:
            os.mkdir(self._directory, 0o755)
        except FileExistsError:
            return
        except FileNotFoundError:
            files.make_directories(self._root, self.path)
        except OSError as error:
            raise files.failure(
                error, f"create cgroup {self._directory}", self._directory
            ) from error

    def _enable(self, wanted: Iterable[str]) -> None:
        """Pass the controllers in `wanted` that exist down to this cgroup.

        One that cannot be passed on is left out here; setting a limit that needs it tells.
        Source: admin-guide/cgroup-v2.rst, "Enabling and Disabling", "Top-down Constraint".
        """
        available = _controllers(self._root)
        wanted = [name for name in wanted if name in available]
        *above, parent = self._above()
        if not _missing(parent, wanted):
            return
        for directory in (*above, parent):
            if missing := _missing(directory, wanted):
                given = files.read(directory + "/cgroup.controllers").split()
                _pass_on(directory, [name for name in missing if name in given])

    def _above(self) -> list[str]:
        """The directories from the mount point to the parent."""
        directories = [self._root]
        for name in self.path.split("/")[1:-1]:
            directories.append(f"{directories[-1]}/{name}")
        return directories

    def gate(self, *, made: bool = False) -> Gate:
        return GateV2([])

    def clone_into(self) -> int | None:
        self.create()  # a controller enabled over a process's head would wait as `add` does
        try:
            return os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise files.failure(error, f"open cgroup {self._directory}", self._directory) from error

    def add(self, pid: int) -> None:
        files.write(self._directory + "/cgroup.procs", str(pid))

    def paths(self) -> dict[str, str]:
        return {"": self._directory}

    def exists(self) -> bool:
        return os.path.isdir(self._directory)

    def delegate(self, uid: int) -> None:
        if self._hybrid:
            return
        names = (files.read_optional(_DELEGATE) or _DELEGATED).split()
        for path in (self._directory, *(f"{self._directory}/{name}" for name in names)):
            try:
                os.chown(path, uid, -1)
            except FileNotFoundError:
                continue  # not every cgroup has every file, says the specification
            except OSError as error:
                raise files.failure(error, f"give {path} to user {uid}", path) from error

    # Limits

    def apply(self, resources: Mapping[str, Any]) -> None:
        check_sections(resources)
        items = v2_resources.settings(resources, self._read)
        if self._hybrid and items:
            self._enable(sorted(v2_resources.controllers(items)))
        refused = [item for item in items if not self._write(item, again=True)]
        for item in refused:
            self._write(item, again=False)
        if resources.get("devices"):
            self._apply_devices(resources["devices"])

    def _read(self, file: str) -> str | None:
        return files.read_optional(f"{self._directory}/{file}")

    def _write(self, setting: Setting, *, again: bool) -> bool:
        """Write one setting. With `again`, False if its siblings may have to change first."""
        file, value = setting
        path = f"{self._directory}/{file}"
        try:
            files.write_raw(path, value.encode())
        except OSError as error:
            if error.errno == EINVAL and again:
                return False
            if error.errno == ENOENT:
                raise self._unknown_file(error, file, path) from error
            raise files.failure(error, f"write {value!r} to {path}", path) from error
        return True

    def _unknown_file(self, error: OSError, file: str, path: str) -> RuntimeFailure:
        controller = file.partition(".")[0]
        if controller in files.read(self._directory + "/cgroup.controllers").split():
            return files.failure(error, f"cannot set {file}: this kernel does not have it", path)
        if not self.exists():
            return files.failure(error, f"cannot set {file}: {self._directory} is gone", path)
        lacking = next((each for each in self._above() if _missing(each, [controller])), None)
        hint = None
        if lacking not in (None, self._root) and tree.processes(str(lacking), False):
            hint = f"{lacking} has processes of its own: move them into a cgroup below it"
        return RuntimeFailure(
            "cgroup",
            f"cannot set {file}: the {controller} cgroup controller is not enabled in {lacking}",
            path=path,
            errno=error.errno,
            hint=hint,
        )

    def _apply_devices(self, entries: list[Mapping[str, Any]]) -> None:
        from sampan.linux import ebpf
        from sampan.linux.cgroups import devices

        program = ebpf.device_program(devices.parse_rules(entries))
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ebpf.replace_device_program(fd, program)
        except OSError as error:
            raise files.failure(error, "load the device filter", self._directory) from error
        finally:
            os.close(fd)

    # Processes

    def processes(self, *, recursive: bool = True) -> list[int]:
        return tree.processes(self._directory, recursive)

    def freeze(self) -> None:
        if not self._set_frozen("1"):
            files.write(self._directory + "/cgroup.freeze", "0")
            raise RuntimeFailure("cgroup", f"cannot freeze {self.path}: its processes do not stop")

    def thaw(self) -> None:
        self._set_frozen("0")

    def _set_frozen(self, value: str) -> bool:
        files.write(self._directory + "/cgroup.freeze", value)
        return tree.wait_event(self._directory, "frozen", value, time.monotonic() + _FREEZE_S)

    def frozen(self) -> bool:
        return self._read("cgroup.freeze") == "1\n"

    def can_kill(self) -> bool:
        """Whether the directory and the kernel's cgroup.kill (Linux 5.14) are there."""
        return os.path.exists(self._directory + "/cgroup.kill")

    def kill(self, signal: int = 9) -> None:
        if signal == 9 and self.can_kill():
            files.write(self._directory + "/cgroup.kill", "1")
            return
        if not self.exists():
            return
        frozen = self.frozen()
        if not frozen:
            files.write(self._directory + "/cgroup.freeze", "1")
            # A process that does not stop is signalled all the same.
            tree.wait_event(self._directory, "frozen", "1", time.monotonic() + 0.5)
        try:
            tree.send(self.processes(), signal)
        finally:
            if signal == 9 or not frozen:
                files.write(self._directory + "/cgroup.freeze", "0")

    # End and figures

    def delete(self) -> None:
        tree.remove(self._directory, time.monotonic() + _DELETE_S)

    def stats(self) -> CgroupStats:
        from sampan.linux.cgroups.stats import read_v2

        return read_v2(self._directory)

    def oom_kills(self) -> int:
        text = self._read("memory.events") or ""
        _, found, count = text.partition("oom_kill ")
        return int(count.split()[0]) if found else 0


_roots: dict[str, frozenset[str]] = {}


def _controllers(root: str) -> frozenset[str]:
    """The controllers of the v2 tree at `root`, read once: they change only when one is mounted."""
    if root not in _roots:
        _roots[root] = frozenset(files.read(root + "/cgroup.controllers").split())
    return _roots[root]


def _missing(directory: str, wanted: Iterable[str]) -> list[str]:
    """Those of `wanted` that `directory` does not pass on."""
    passed = files.read(directory + "/cgroup.subtree_control").split()
    return [name for name in wanted if name not in passed]


def _pass_on(directory: str, names: list[str]) -> None:
    if not names:
        return
    path = directory + "/cgroup.subtree_control"
    try:
        files.write_raw(path, " ".join("+" + name for name in names).encode())
    except OSError:
        for name in names:
            try:
                files.write_raw(path, f"+{name}".encode())
            except OSError:
                continue
