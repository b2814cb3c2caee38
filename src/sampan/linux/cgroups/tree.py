"""Cgroup directories as a tree: who is in it, waiting for it to be empty, removing it."""

from __future__ import annotations

import os
import select
import time
from errno import EBUSY, ENODEV, ENOENT, ESRCH

from sampan.errors import RuntimeFailure
from sampan.linux.cgroups.files import failure, read_optional, read_raw

_POLL_MS = 2


def subdirectories(directory: str) -> list[str]:
    """The cgroups right below; empty if the directory is gone."""
    try:
        if os.stat(directory).st_nlink == 2:
            return []  # a link for each directory below, as kernfs counts: spares the reading
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def processes(directory: str, recursive: bool) -> list[int]:
    """The IDs of the processes in `directory`; empty if it is gone.

    Raises:
        RuntimeFailure: it cannot be read.
    """
    path = directory + "/cgroup.procs"
    try:
        # 0 stands for a process of a PID namespace above; to kill(2) that is our own group.
        pids = [int(pid) for pid in read_raw(path).split() if pid != "0"]
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return []
        raise failure(error, f"read {path}", path) from error
    if recursive:
        for child in subdirectories(directory):
            pids += processes(child, True)
    return pids


def remove(directory: str, deadline: float) -> None:
    """Remove the cgroup `directory` and those below; it may be gone already.

    Processes that are dying are waited for until `deadline` (of time.monotonic).

    Raises:
        RuntimeFailure: processes live in it after the deadline, or the kernel refuses.
    """
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != EBUSY:
                raise failure(error, f"remove cgroup {directory}", directory) from error
            for child in subdirectories(directory):
                remove(child, deadline)
            if time.monotonic() >= deadline:
                raise _busy(directory, error) from error
            _wait(directory, deadline)


def _busy(directory: str, error: OSError) -> RuntimeFailure:
    names = []
    for pid in processes(directory, False)[:5]:
        command = (read_optional(f"/proc/{pid}/comm") or "gone").strip()
        names.append(f"{pid} ({command})")
    what = f"processes are in it: {', '.join(names)}" if names else os.strerror(EBUSY)
    return failure(error, f"remove cgroup {directory}: {what}", directory)


def _wait(directory: str, deadline: float) -> None:
    """Wait until the processes in `directory` have ended, or the deadline.

    v2 tells by an event on cgroup.events. v1 has none, so each process is waited for through its
    pidfd; it leaves the cgroup's count a moment later or earlier, which only looking again shows.
    """
    if os.path.exists(directory + "/cgroup.events"):
        wait_event(directory, "populated", "0", deadline)
        return
    for pid in processes(directory, False):
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            if error.errno == ESRCH:
                continue
            raise failure(error, f"pidfd_open {pid}", directory) from error
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.poll(_left_ms(deadline))
        finally:
            os.close(fd)
    select.poll().poll(_POLL_MS)


def wait_event(directory: str, key: str, value: str, deadline: float) -> bool:
    """Wait until cgroup.events of a v2 cgroup says `key value`; False at the deadline.

    True as well when the cgroup is gone. Source: admin-guide/cgroup-v2.rst, "cgroup.events".
    """
    try:
        fd = os.open(directory + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        while True:
            try:
                text = os.pread(fd, 4096, 0).decode()
            except OSError as error:
                if error.errno == ENODEV:
                    return True
                raise
            if f"{key} {value}\n" in text:
                return True
            left = _left_ms(deadline)
            if left <= 0:
                return False
            poller.poll(left)
    finally:
        os.close(fd)


def _left_ms(deadline: float) -> int:
    return max(0, int((deadline - time.monotonic()) * 1000) + 1)


def send(pids: list[int], signal: int) -> None:
    """Send `signal` to each process; one that is gone is passed over.

    The caller has stopped the processes, so that no ID is another's by now.
    """
    for pid in pids:
        try:
            os.kill(pid, signal)
        except ProcessLookupError:
            continue
