"""What can be done to a container that exists: signal, pause, resume, change limits, list processes.

Plain functions on a pid and a cgroup, for the engine, the shim and the command `sampan-oci` alike.
"""

from __future__ import annotations

import os

from sampan.errors import Conflict, RuntimeFailure
from sampan.linux import pidfd
from sampan.linux import syscalls as sys
from sampan.runtime import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.linux.cgroups.base import Cgroup

CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"


def state(pid: int, start_time: int, cgroup: Cgroup | None = None, *, waiting: bool = False) -> str:
    """The status of runtime.md, "State", or `paused`.

    `start_time` (clock ticks since boot, `pidfd.start_time`) tells the container's init from a later
    process with its number; `waiting` says that it has not been started.
    """
    if not alive(pid, start_time):
        return STOPPED
    if cgroup is not None and cgroup.frozen():
        return PAUSED
    return CREATED if waiting else RUNNING


def alive(pid: int, start_time: int) -> bool:
    """Does the process that had this pid and start time still run? A zombie does not."""
    if pid <= 0:
        return False
    try:
        return pidfd.start_time(pid) == start_time and pidfd.state(pid) not in ("Z", "X")
    except OSError:
        return False


def kill(pid: int, start_time: int, signal: int) -> None:
    """Send a signal to a container's init.

    Raises:
        Conflict: `container not running`.
    """
    try:
        fd = sys.pidfd_open(pid)
    except ProcessLookupError as error:
        raise Conflict("container not running") from error
    try:
        if not alive(pid, start_time) or not pidfd.send_signal(fd, signal):
            raise Conflict("container not running")
    finally:
        os.close(fd)


def kill_all(cgroup: Cgroup, signal: int) -> None:
    """Send a signal to every process of a container, also to those forked meanwhile."""
    cgroup.kill(signal)


def pause(cgroup: Cgroup) -> None:
    """Stop all processes; back when they are stopped."""
    cgroup.freeze()


def resume(cgroup: Cgroup) -> None:
    """Let all processes go on."""
    cgroup.thaw()


def update(cgroup: Cgroup, resources: Mapping[str, Any]) -> None:
    """Change limits: OCI `linux.resources` with only what is to change.

    Raises:
        RuntimeFailure: stage `cgroup`: a controller is missing, or the kernel refuses a value.
    """
    cgroup.apply(plan.device_resources(resources))


def ps(cgroup: Cgroup) -> list[int]:
    """The pids of all processes of a container, as the caller's PID namespace counts, sorted."""
    return sorted(cgroup.processes())


def end(pid: int, start_time: int, cgroup: Cgroup | None, timeout_s: float = 10) -> None:
    """Kill everything of a container and wait until its init is gone.

    Raises:
        RuntimeFailure: stage `kill`: init is still there after the time.
    """
    fd = -1
    try:
        fd = sys.pidfd_open(pid) if pid > 0 else -1
    except ProcessLookupError:
        pass
    try:
        if fd >= 0 and alive(pid, start_time):
            pidfd.send_signal(fd, sys.SIGKILL)
        if cgroup is not None:
            cgroup.kill(sys.SIGKILL)
            cgroup.thaw()
        if fd >= 0 and alive(pid, start_time) and not pidfd.ended(fd, timeout_s):
            raise RuntimeFailure("kill", f"container init still running (pid {pid})")
    finally:
        if fd >= 0:
            os.close(fd)
