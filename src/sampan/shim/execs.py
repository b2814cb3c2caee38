"""Further processes in a container, each with its own stdio and at most one client."""

from __future__ import annotations

import os
import signal
import time

from sampan.shim import launching
from sampan.shim.helper import Helper
from sampan.shim.protocol import ExecRequest
from sampan.shim.stdio import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.shim.loop import Loop
    from sampan.shim.protocol import SpawnOrder, StreamOptions


STOP_ATTEMPTS = 50
STOP_PAUSE_S = 0.001


class ExecProcess:
    """A process of `docker exec`; a child of the shim."""

    __slots__ = ("id", "pid", "pidfd", "stdio")

    def __init__(self, exec_id: str, pid: int, pidfd: int, stdio: Stdio | None) -> None:
        self.id = exec_id
        self.pid = pid
        self.pidfd = pidfd
        self.stdio = stdio

    def signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass  # it has ended, the report is on its way

    def kill_tree(self) -> None:
        """Kill the process and its descendants: all are stopped first, so that none forks away."""
        known: list[int] = []
        fresh = [self.pid]
        while fresh:
            for pid in fresh:
                kill(pid, signal.SIGSTOP)
            for pid in fresh:
                wait_stopped(pid)
            known += fresh
            fresh = [child for pid in known for child in children(pid) if child not in known]
        for pid in reversed(known):
            kill(pid, signal.SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        if self.stdio is not None:
            self.stdio.resize(rows, columns)

    def ended(self) -> None:
        """It has been reaped: take what it left."""
        os.close(self.pidfd)
        if self.stdio is not None:
            self.stdio.drain()


def start(
    loop: Loop,
    request: ExecRequest,
    client: tuple[int, StreamOptions, Callable[[str], None]] | None,
    *,
    order: SpawnOrder,
    container_pid: int,
) -> ExecProcess:
    """Start the process; `client` is its (socket, options, on_end), owned when this returns.

    Raises:
        RuntimeFailure: it did not get as far as its own program; nothing is left of it.
    """
    watched = client is not None or request.terminal
    stdin = client is not None and client[1].stdin
    helper = Helper(launching.work)
    helper.begin_message(
        launching.exec_work(order, request, container_pid, watched=watched, stdin=stdin)
    )
    made, (pidfd, *ours) = helper.result()
    stdio = None
    if watched:
        stdio = Stdio(loop, terminal=request.terminal, stdin_once=True)
        stdio.start(ours)
        if client is not None:
            stdio.attach(*client)
    return ExecProcess(request.id, made["pid"], pidfd, stdio)


def children(pid: int) -> list[int]:
    """The children of all threads of a process; see proc_pid_task(5)."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def wait_stopped(pid: int) -> None:
    """A stopped process forks no more; one in an uninterruptible call does not either, for now."""
    for _ in range(STOP_ATTEMPTS):
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                state = file.read(4096).rpartition(b") ")[2][:1]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state != b"R" and state != b"S":
            return
        time.sleep(STOP_PAUSE_S)


def kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
