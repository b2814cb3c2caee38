"""What a process does with a signal, as /proc/PID/status tells (proc(5))."""

from __future__ import annotations

import signal

_UNSTOPPABLE = frozenset((signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT))
_MASKS = frozenset((b"SigBlk", b"SigIgn", b"SigCgt"))


def is_lost_on(pid: int, number: int) -> bool:
    """Whether the kernel drops this signal now: no process sees it, then or later.

    So it is for the first process of a PID namespace of its own that has neither a handler for it nor
    blocks it, as for sigwait(3) or signalfd(2); see pid_namespaces(7). Signals that it ignores by its
    own wish, and those that the kernel acts on, do not count. False when there is no such process.
    """
    if number in _UNSTOPPABLE:
        return False
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    fields = dict(line.partition(b":")[::2] for line in lines)
    if fields.get(b"NSpid", b"").split()[1:][-1:] != [b"1"]:
        return False
    masks = [int(fields[name], 16) for name in _MASKS if name in fields]
    return len(masks) == len(_MASKS) and not any(mask >> (number - 1) & 1 for mask in masks)
