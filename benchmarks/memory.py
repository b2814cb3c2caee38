"""Memory of an engine: PSS, so that pages shared by forked processes count once."""

from __future__ import annotations

import os

from support.engines import Engine
from support.leaks import ENGINE_MARK, marked_processes


def engine_processes(engine: Engine) -> set[int]:
    """The engine's own processes: those it started and their children, without containers."""
    assert engine.process is not None
    known = {int(line.split()[1]) for line in marked_processes(engine.mark, ENGINE_MARK)}
    known.add(engine.process.pid)
    own_pid_namespace = os.readlink(f"/proc/{engine.process.pid}/ns/pid")
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parents[int(entry)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in known and pid not in known:
                known.add(pid)
                grown = True
    return {pid for pid in known if _pid_namespace(pid) == own_pid_namespace}


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def pss_bytes(engine: Engine) -> int:
    """The sum over all its processes."""
    total = 0
    for pid in engine_processes(engine):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total * 1024
