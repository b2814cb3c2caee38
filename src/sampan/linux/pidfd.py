"""Processes by file descriptor: a pidfd names one process for ever, a pid does not."""

from __future__ import annotations

import os
import select

from sampan.linux import syscalls as sys


def send_signal(pidfd: int, signal: int) -> bool:
    """Send a signal; False if the process has ended."""
    try:
        sys.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    return True


def ended(pidfd: int, timeout_s: float = 0) -> bool:
    """Has the process ended, or does it within the time? A zombie has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def kill_and_reap(pid: int, pidfd: int) -> None:
    """Kill a child of this process and take its status; nothing if that was done before."""
    send_signal(pidfd, sys.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def exit_code(status: int) -> int:
    """The exit code that a shell would show for a status of waitpid(2): 128 + signal when killed."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (field 22 of proc_pid_stat(5)).

    With the pid it tells a process from a later one with the same number.

    Raises:
        OSError: no such process.
    """
    return int(_stat_fields(pid)[19])


def state(pid: int) -> str:
    """The state letter of proc_pid_stat(5): R, S, D, T, Z …; OSError for no such process."""
    return _stat_fields(pid)[0].decode()


def _stat_fields(pid: int) -> list[bytes]:
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 4096)
    finally:
        os.close(fd)
    return data[data.rindex(b")") + 2 :].split()
