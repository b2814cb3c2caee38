"""A process and its attributes: cloning, limits, scheduling, file descriptors, signals."""

from __future__ import annotations

import ctypes
import fcntl
import os

from sampan.linux import syscalls as sys
from sampan.linux import vfork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _function in (_before_fork, _after_fork_parent, _after_fork_child):
    _function.restype = None

# asm-generic/resource.h
RLIMITS: dict[str, int] = {
    "RLIMIT_AS": 9,
    "RLIMIT_CORE": 4,
    "RLIMIT_CPU": 0,
    "RLIMIT_DATA": 2,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_NPROC": 6,
    "RLIMIT_RSS": 5,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_STACK": 3,
}
"""Name in the OCI runtime-spec → number of the kernel."""

# linux/sched.h
SCHEDULING_POLICIES: dict[str, int] = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULING_FLAGS: dict[str, int] = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

# linux/ioprio.h
IO_PRIORITY_CLASSES: dict[str, int] = {
    "IOPRIO_CLASS_RT": 1,
    "IOPRIO_CLASS_BE": 2,
    "IOPRIO_CLASS_IDLE": 3,
}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13

# linux/personality.h
PERSONALITIES: dict[str, int] = {"LINUX": 0x0000, "LINUX32": 0x0008}


_for_parent = False


def clone_for_parent() -> None:
    """From now on `clone` makes children of this process's parent (CLONE_PARENT).

    For a helper that sets a process up and ends, while its parent keeps and reaps what was made.
    """
    global _for_parent
    _for_parent = True


def clones_for_parent() -> bool:
    """Has `clone_for_parent` been called, so that this process ends after its one piece of work?"""
    return _for_parent


def clone(
    flags: int,
    *,
    exit_signal: int = sys.SIGCHLD,
    cgroup_fd: int = -1,
    own_child: bool = False,
) -> tuple[int, int]:
    """Fork with new namespaces in one clone3(2): (pid, pidfd) in the parent, (0, -1) in the child.

    As os.fork, with Python's own locks brought in order on both sides; the child of a process
    with threads may only exec. The child ends by exec or os._exit. With `own_child` it is this
    process's child even behind `clone_for_parent`.

    Raises:
        OSError: as `sampan.linux.syscalls.clone3`.
    """
    if _for_parent and not own_child:
        flags |= sys.CLONE_PARENT
        exit_signal = 0  # the child takes over our own, see clone(2)
    _before_fork()
    pid = -1
    try:
        pid, pidfd = sys.clone3(flags, exit_signal=exit_signal, cgroup_fd=cgroup_fd)
    finally:
        if pid == 0:
            _after_fork_child()
        else:
            _after_fork_parent()
    return pid, pidfd


def clone_program(
    calls: Sequence[tuple[str, int, *tuple[object, ...]]], *, cgroup_fd: int = -1
) -> vfork.Child:
    """`linux.vfork.clone`, as a child of whom `clone` makes children of.

    Raises:
        OSError: see there.
    """
    flags, exit_signal = (sys.CLONE_PARENT, 0) if _for_parent else (0, sys.SIGCHLD)
    return vfork.clone(calls, flags=flags, exit_signal=exit_signal, cgroup_fd=cgroup_fd)


def argument_area() -> tuple[int, int]:
    """(address, bytes) of this process's command line; the same in its forks. See proc_pid_stat(5)."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    return start, end - start


def set_title(area: tuple[int, int], words: Sequence[bytes]) -> None:
    """Show other words as this process's command line, cut to the room that `argument_area` tells."""
    address, size = area
    title = b"\0".join(words)[: max(0, size - 1)]
    ctypes.memmove(address, title.ljust(size, b"\0"), size)


def set_name(name: bytes) -> None:
    """Set what `ps` and /proc/PID/comm call this thread, up to 15 bytes; see PR_SET_NAME of prctl(2)."""
    sys.prctl(sys.PR_SET_NAME, ctypes.addressof(ctypes.create_string_buffer(name)))


def set_limit(name: str, soft: int, hard: int, *, pid: int = 0) -> None:
    """Set a resource limit by its OCI name; 2**64-1 is infinity.

    Raises:
        KeyError: no such limit.
        OSError: EPERM for a raise without CAP_SYS_RESOURCE, EINVAL for soft above hard.
    """
    sys.prlimit64(pid, RLIMITS[name], soft, hard)


def set_io_priority(kind: str, priority: int) -> None:
    """Set this process's I/O priority: a name of IO_PRIORITY_CLASSES and 0 (high) to 7."""
    value = IO_PRIORITY_CLASSES[kind] << _IOPRIO_CLASS_SHIFT | priority
    sys.ioprio_set(_IOPRIO_WHO_PROCESS, 0, value)


def set_scheduler(scheduler: Mapping[str, object]) -> None:
    """Apply `process.scheduler` of the OCI runtime-spec to this process; times are nanoseconds.

    Raises:
        KeyError: an unknown policy or flag.
        OSError: of sched_setattr(2).
    """

    def number(key: str) -> int:
        value = scheduler.get(key)
        return value if isinstance(value, int) else 0

    flags = 0
    named = scheduler.get("flags")
    for name in named if isinstance(named, list) else ():
        flags |= SCHEDULING_FLAGS[str(name)]
    sys.sched_setattr(
        0,
        policy=SCHEDULING_POLICIES[str(scheduler["policy"])],
        flags=flags,
        nice=number("nice"),
        priority=number("priority"),
        runtime_ns=number("runtime"),
        deadline_ns=number("deadline"),
        period_ns=number("period"),
    )


def default_signals() -> None:
    """Give every signal its default action and block none: an exec'd program starts clean."""
    for number in range(1, sys.NSIG + 1):
        if number not in (sys.SIGKILL, sys.SIGSTOP):
            sys.default_action(number)
    sys.libc.sigprocmask(sys.SIG_SETMASK, bytes(128), None)


def install_stdio(fds: tuple[int, int, int]) -> None:
    """Make three file descriptors this process's 0, 1 and 2, inheritable; any numbers may clash."""
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in fds]
    for target, fd in enumerate(safe):
        os.dup2(fd, target)
        os.close(fd)


def parse_list(text: str) -> set[int]:
    """The numbers of a kernel list such as `0-3,7`; ValueError for anything else."""
    numbers: set[int] = set()
    for part in text.split(","):
        if not part.strip():
            continue
        first, dash, last = part.strip().partition("-")
        numbers.update(range(int(first), (int(last) if dash else int(first)) + 1))
    return numbers
