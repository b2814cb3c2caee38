"""What the kernel's log says of the processes that it killed for want of memory."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

from sampan.linux.syscalls import libc

SYSLOG_ACTION_READ_ALL = 3  # syslog(2)
# The last of it; reading takes the kernel some 10 µs a KiB.
TAIL_BYTES = 64 << 10

# dump_oom_summary and __oom_kill_process, mm/oom_kill.c.
_KILL = re.compile(
    r"oom-kill:constraint=(?P<constraint>\w+),.*?(?:oom_memcg=(?P<limited>[^,]*),|global_oom,)"
    r"task_memcg=(?P<cgroup>[^,]*),task=(?P<task>.*),pid=(?P<pid>\d+),uid=(?P<uid>\d+)$"
)
_LIMIT = re.compile(r"memory: usage \d+kB, limit (\d+)kB")
_VICTIM = re.compile(r"Killed process (\d+) .*?anon-rss:(\d+)kB, file-rss:(\d+)kB")
_STAMP = re.compile(r"^<\d+>\[ *[\d.]+\](?:\[ *[TC]\d+\])? ")


@dataclass(slots=True)
class OutOfMemory:
    """One process that was killed. `cgroup` was its own; `limited` that whose limit was reached,
    "" when the whole machine had no memory. `limit_bytes` is 0 and `resident_bytes` too where the
    log does not say. The pid is the machine's."""

    process: str
    pid: int
    uid: int
    cgroup: str
    limited: str
    limit_bytes: int = 0
    resident_bytes: int = 0


def read_tail() -> str:
    """The end of the kernel's log; nothing where this process may not read it (CAP_SYSLOG)."""
    buffer = ctypes.create_string_buffer(TAIL_BYTES)
    length = libc.klogctl(SYSLOG_ACTION_READ_ALL, buffer, TAIL_BYTES)
    return buffer.raw[: max(0, length)].decode(errors="replace")


def out_of_memory(text: str) -> list[OutOfMemory]:
    """The kills that a piece of the log tells of, oldest first."""
    found: list[OutOfMemory] = []
    limit_bytes = 0
    for raw in text.splitlines():
        line = _STAMP.sub("", raw)
        if line.startswith("memory: usage") and (match := _LIMIT.match(line)):
            limit_bytes = int(match[1]) << 10
        elif line.startswith("oom-kill:") and (match := _KILL.match(line)):
            limited = match["limited"] or ""
            found.append(
                OutOfMemory(
                    process=match["task"],
                    pid=int(match["pid"]),
                    uid=int(match["uid"]),
                    cgroup=match["cgroup"],
                    limited=limited,
                    limit_bytes=limit_bytes if limited else 0,
                )
            )
            limit_bytes = 0
        elif found and "Killed process" in line:
            match = _VICTIM.search(line)
            if match is not None and int(match[1]) == found[-1].pid:
                found[-1].resident_bytes = (int(match[2]) + int(match[3])) << 10
    return found
