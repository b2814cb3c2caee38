"""The keeper of one process of `exec`: its parent, with its stdio and at most one client.

It knows nothing of the container's shim and needs none. The process ends with the container; where the
kernel does not see to that (no PID namespace of its own), the keeper does.
"""

from __future__ import annotations

import os
import signal
import time

from sampan.errors import RuntimeFailure
from sampan.linux import pidfd
from sampan.linux.cgroups.manager import open_cgroup
from sampan.shim import protocol
from sampan.shim.control import Control
from sampan.shim.loop import READ
from sampan.shim.protocol import StreamOptions
from sampan.shim.stdio import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from sampan.linux.cgroups.leaf import Leaf
    from sampan.shim.exec_order import ExecOrder
    from sampan.shim.helper import Helper
    from sampan.shim.loop import Loop
    from sampan.shim.protocol import Message

# The exit code of a process whose time was up, as by timeout(1).
TIMED_OUT = 124
# Our own end takes the processor for a millisecond, and the client, which has all, is about to end too.
WAY_S = 0.005
STOP_ATTEMPTS = 50
STOP_PAUSE_S = 0.001


class Keeper:
    """States: starting, serving, lingering: the process has ended, but its client still takes output,
    or children of it still hold its pipes, and would be killed by SIGPIPE without a reader.
    """

    __slots__ = (
        "_container",
        "_control",
        "_due_s",
        "_ended",
        "_helper",
        "_killed",
        "_loop",
        "_order",
        "_pid",
        "_pidfd",
        "_stdio",
        "_timed_out",
        "_told",
    )

    def __init__(
        self,
        loop: Loop,
        order: ExecOrder,
        connection: socket.socket,
        container: int,
        helper: Helper,
    ) -> None:
        """`helper` has begun to make the process; `container` is the pidfd of the container's first."""
        self._order = order
        self._container = container
        self._helper = helper
        self._loop = loop
        self._control = Control(loop, connection, self._handle, lambda _: None)
        self._stdio: Stdio | None = None
        self._pid = 0
        self._pidfd = -1
        self._ended = self._killed = self._timed_out = self._told = False
        self._due_s = 0.0

    def start(self, client: list[int]) -> bool:
        """Have the process made; False when that failed and was said.

        `client` is its client's socket, if it has one: owned from here. On failure it is not shut down,
        for the daemon then tells the client.
        """
        self._control.send("begun")
        self._prepare(client)
        try:
            fds = self._made()
        except RuntimeFailure as failure:
            self._control.send("failed", (), **protocol.failure_to_dict(failure))
            kill_children()
            self._drop_leaf()
            return False
        timeout_s = self._order.what().timeout_s
        self._due_s = time.monotonic() + timeout_s if timeout_s else 0.0
        if self._stdio is not None:
            self._stdio.start(fds)
        self._reap()  # it may have ended before its SIGCHLD was looked for
        if not self._ended:
            self._control.send("started", started=self._started())
            self._told = True
        return True

    def _started(self) -> Message:
        return {"pid": self._pid, "keeper_pid": os.getpid()}

    def _prepare(self, client: list[int]) -> None:
        """What can be done while the helper makes the process."""
        order = self._order
        self._loop.on_child(self._reap)
        self._control.watch()
        self._loop.watch(self._container, READ, self._container_ended)
        if not order.is_watched:
            return
        self._stdio = Stdio(self._loop, terminal=order.what().terminal, stdin_once=True)
        for fd in client:
            options = StreamOptions.from_dict(order.stream or {})
            self._stdio.attach(fd, options, self._stream_ended)

    def _made(self) -> list[int]:
        """Wait until the program runs; what `Stdio.start` takes."""
        made, (self._pidfd, *fds) = self._helper.result()
        self._pid = made["pid"]
        return fds

    def serve(self) -> None:
        """Until nothing more can come, or the container has ended."""
        while not self._ended or self._control.has_unsent or self._has_client():
            self._loop.run_once(self._left_s())
        self._control.close()
        while self._stdio is not None and self._stdio.has_output:
            self._loop.run_once()
        self._drop_leaf()
        time.sleep(WAY_S)

    def _leaf(self) -> Leaf | None:
        path = self._order.cgroup_path
        return self._order.leaf_of(open_cgroup(path)) if path else None

    def _drop_leaf(self) -> None:
        if (leaf := self._leaf()) is not None:
            leaf.remove()

    def _left_s(self) -> float | None:
        """How long to wait for something to happen; ends the process when its time is up."""
        if not self._due_s or self._ended:
            return None
        left_s = self._due_s - time.monotonic()
        if left_s > 0:
            return left_s
        self._due_s, self._timed_out = 0.0, True
        self._kill()
        return None

    def _kill(self) -> None:
        """End the process and what it started; output is not waited for that others could still write."""
        self._killed = True
        kill_tree(self._pid)
        if (leaf := self._leaf()) is not None:
            leaf.kill()

    def _has_client(self) -> bool:
        return self._stdio is not None and bool(self._stdio.clients)

    def _handle(self, _: Control, message: Message, __: list[int]) -> Message:
        """Do what the daemon asks for; what has ended takes nothing, the report is on its way."""
        kind = message.get("type")
        if kind == "resize":
            if self._stdio is not None:
                self._stdio.resize(message["rows"], message["columns"])
        elif kind == "signal":
            pidfd.send_signal(self._pidfd, message["number"])
        elif kind == "kill_tree":
            if not self._ended:
                self._kill()
        else:
            raise ValueError(f"the keeper of an exec knows no request {kind!r}")
        return {}

    def _stream_ended(self, reason: str) -> None:
        assert self._order.stream is not None
        self._control.send("stream_end", stream=self._order.stream["number"], reason=reason)

    def _container_ended(self, _: int) -> None:
        self._loop.forget(self._container)
        pidfd.send_signal(self._pidfd, signal.SIGKILL)
        if self._ended and self._stdio is not None:
            self._stdio.close_outputs()

    def _reap(self) -> None:
        """At once, whatever the client does: until then the container's PID namespace cannot end."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self._pid:
                    self._process_ended(status)
        except ChildProcessError:
            return

    def _process_ended(self, status: int) -> None:
        self._ended = True
        if self._killed and (leaf := self._leaf()) is not None:
            leaf.await_end()
        if self._stdio is not None:
            self._stdio.drain()
        # Told before the client's stream ends, for the client then asks the daemon for the code.
        code = TIMED_OUT if self._timed_out else pidfd.exit_code(status)
        if self._told:
            self._control.send("exec_exited", exit_code=code)
        else:  # both in one: the daemon is not woken twice while the client waits
            self._control.send("started", started={**self._started(), "exit_code": code})
        if self._stdio is not None:
            self._stdio.finish()
            if self._killed or pidfd.ended(self._container):
                self._stdio.close_outputs()


def kill_children() -> None:
    """End what the helper has made, and itself, and take their status."""
    for pid in children(os.getpid()):
        kill(pid, signal.SIGKILL)
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def kill_tree(root: int) -> None:
    """Kill a child of ours, its descendants, and what is in its session: all are stopped first, so that
    none forks away.

    A process whose parent has ended is nobody's descendant any more, but in the session of `root` it stays,
    unless it made one of its own.
    """
    known: list[int] = []
    fresh = [root, *session_members(root)]
    while fresh:
        for pid in fresh:
            kill(pid, signal.SIGSTOP)
        for pid in fresh:
            wait_stopped(pid)
        known += fresh
        found = [child for pid in known for child in children(pid)] + session_members(root)
        fresh = [pid for pid in dict.fromkeys(found) if pid not in known]
    for pid in reversed(known):
        kill(pid, signal.SIGKILL)


def session_members(leader: int) -> list[int]:
    """The other processes in the session that `leader` leads; see proc_pid_stat(5)."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == leader:
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                fields = file.read(4096).rpartition(b") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader:
            found.append(int(name))
    return found


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
