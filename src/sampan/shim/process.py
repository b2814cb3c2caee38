"""The shim of one container: parent of its first process, keeper of its output and exit status."""

from __future__ import annotations

import os
import resource  # noqa: F401  os.wait4 imports it at its first use, at the end of a container
import signal
import socket
import time

from sampan.errors import RuntimeFailure, SampanError
from sampan.linux import pidfd
from sampan.linux import syscalls as kernel
from sampan.linux.cgroups.final import final_usage
from sampan.linux.cgroups.manager import open_cgroup
from sampan.logs import drivers
from sampan.shim import control, exit_record, launching, protocol
from sampan.shim.helper import as_failure
from sampan.shim.loop import READ
from sampan.shim.protocol import ExitStatus, Started, StreamOptions
from sampan.shim.stdio import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.linux.cgroups.manager import Cgroup
    from sampan.shim.control import Control
    from sampan.shim.helper import Helper
    from sampan.shim.loop import Loop
    from sampan.shim.protocol import Message, SpawnOrder


class Shim:
    """States: starting, serving, lingering (ended, but a client still takes output)."""

    def __init__(
        self,
        loop: Loop,
        order: SpawnOrder,
        connection: socket.socket,
        helper: Helper,
    ) -> None:
        """`helper` has begun to make the container."""
        self._order = order
        self._helper = helper
        self._loop = loop
        self._controls: list[Control] = []
        self._first = self._add_control(connection)
        self._listener: socket.socket | None = None
        self._stdio: Stdio | None = None
        self._pid = 0
        self._pidfd = -1
        self._cgroup: Cgroup | None = None
        self._started: Started | None = None
        self._status: ExitStatus | None = None
        self._log_error = ""

    # Starting

    def start(self, streams: list[tuple[int, StreamOptions]]) -> bool:
        """Make the container; False when that failed, was said, and all is undone."""
        self._first.send("begun")
        try:
            self._make_container(streams)
        except (SampanError, OSError) as error:
            self._undo()
            self._first.send("failed", **protocol.failure_to_dict(as_failure(error)))
            return False
        return True

    def _make_container(self, streams: list[tuple[int, StreamOptions]]) -> None:
        order = self._order
        exit_record.remove(order.directory)
        stdio = self._stdio = Stdio(
            self._loop,
            terminal=order.terminal,
            stdin_once=order.stdin_once,
            on_log_lost=self._log_lost,
        )
        try:
            self._prepare(stdio, streams)
        except BaseException:
            self._kill_launched()
            raise
        made, (self._pidfd, *fds) = self._launched()
        sockets, fds = fds[: made["sockets"]], fds[made["sockets"] :]
        self._pid = made["pid"]
        self._started = Started(
            id=order.id,
            pid=self._pid,
            shim_pid=os.getpid(),
            started_at_ns=time.time_ns(),
            directory=order.directory,
            cgroup_path=order.cgroup_path,
            exec_config=order.exec_config,
            trace=made["marks"],
            warnings=made["warnings"],
        )
        self._first.send("started", (self._pidfd, *sockets), started=self._started.to_dict())
        protocol.close_all(sockets)
        stdio.start(fds)

    def _prepare(self, stdio: Stdio, streams: list[tuple[int, StreamOptions]]) -> None:
        """What can be done while the helper makes the container."""
        self._listener = control.listen(self._order.socket)
        self._loop.on_child(self._reap)
        stdio.use_log(open_log(self._order))
        for fd, options in streams:
            stdio.attach(fd, options, self._stream_ended(self._first, options.number))

    def _launched(self) -> tuple[Message, list[int]]:
        """Wait until the container runs."""
        made, fds = self._helper.result()
        if made["type"] == launching.JOINS:
            return launching.start_container(self._order)
        return made, fds

    def _kill_launched(self) -> None:
        """Our own part failed: end the container that the helper has made meanwhile."""
        try:
            made, fds = self._helper.result()
        except RuntimeFailure:
            return
        if made["type"] == launching.JOINS:
            return
        signal.pidfd_send_signal(fds[0], signal.SIGKILL)
        protocol.close_all(fds)
        os.waitpid(made["pid"], 0)
        end_cgroup(self._order.cgroup_path)

    def _undo(self) -> None:
        """The container is undone by the runtime; the rest is ours."""
        try:
            while True:  # what the helper made and killed, and itself
                os.waitpid(-1, 0)
        except ChildProcessError:
            pass
        if self._stdio is not None:
            self._stdio.abort()
            self._stdio.finish_log()
        self._close_listener()

    # Serving

    def serve(self) -> None:
        """Until the container has ended and its clients have taken all."""
        kernel.libc.malloc_trim(0)
        assert self._listener is not None
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        self._first.watch()
        self._reap()  # a container may have ended before its SIGCHLD was looked for
        while self._status is None:
            self._loop.run_once()
        self._end()
        while any(c.has_unsent for c in self._controls) or self._has_clients():
            self._loop.run_once()

    def _accept(self, _: int) -> None:
        assert self._listener is not None
        sock = control.accept(self._listener)
        if sock is not None:
            self._add_control(sock).watch()

    def _add_control(self, sock: socket.socket) -> Control:
        added = control.Control(self._loop, sock, self._handle, self._controls_remove)
        self._controls.append(added)
        return added

    def _controls_remove(self, closed: Control) -> None:
        self._controls.remove(closed)

    def _handle(self, connection: Control, message: Message, fds: list[int]) -> Message:
        """Do what a daemon asks for."""
        kind = message.get("type")
        if kind == "attach":
            self._attach(connection, message, fds)
        elif kind == "hello":
            return self._hello(connection)
        elif kind == "resize":
            assert self._stdio is not None
            self._stdio.resize(message["rows"], message["columns"])
        elif kind == "signal":
            self._signal(message["number"])
        else:
            raise ValueError(f"the shim knows no request {kind!r}")
        return {}

    def _hello(self, connection: Control) -> Message:
        assert self._started is not None
        connection.send("process", (self._pidfd,))
        return {
            "version": protocol.PROTOCOL_VERSION,
            "started": self._started.to_dict(),
            "exited": self._status.to_dict() if self._status is not None else None,
            "log_lost": self._log_error,
        }

    def _attach(self, connection: Control, message: Message, fds: list[int]) -> None:
        options = StreamOptions.from_dict(message["stream"])
        assert self._stdio is not None
        self._stdio.attach(fds.pop(0), options, self._stream_ended(connection, options.number))

    def _signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass

    def _stream_ended(self, connection: Control, number: int) -> Callable[[str], None]:
        return lambda reason: connection.send("stream_end", stream=number, reason=reason)

    def _broadcast(self, kind: str, **body: object) -> None:
        for each in list(self._controls):
            each.send(kind, (), **body)

    def _log_lost(self, error: OSError) -> None:
        self._log_error = error.strerror or str(error)
        self._broadcast("log_lost", error=self._log_error)

    # The end

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._pid:
                self._container_ended(status, usage)

    def _container_ended(self, status: int, usage: Any) -> None:
        ended_at_ns = time.time_ns()
        assert self._stdio is not None and self._started is not None
        if self._order.cgroup_path:
            self._cgroup = open_cgroup(self._order.cgroup_path)
        if self._cgroup is not None and not self._order.own_pid_namespace:
            self._cgroup.kill()  # else the kernel has killed all with the first process
        self._stdio.drain()
        self._stdio.finish_log()
        record = ExitStatus(
            exit_code=pidfd.exit_code(status),
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            exited_at_ns=ended_at_ns,
            started_at_ns=self._started.started_at_ns,
            usage={
                "cpu_ns": int((usage.ru_utime + usage.ru_stime) * 1e9),
                "peak_memory_bytes": usage.ru_maxrss * 1024,
            },
        )
        if self._cgroup is not None:
            take_usage(record, self._cgroup)
        exit_record.write(self._order.directory, record)
        self._broadcast("exited", status=record.to_dict())
        self._status = record

    def _end(self) -> None:
        """Everybody who listens knows: give all back."""
        assert self._stdio is not None
        self._stdio.finish()
        self._stdio.close_outputs()
        self._close_listener()
        if self._cgroup is not None:
            self._cgroup.delete()
        for each in list(self._controls):
            if not each.has_unsent:
                each.close()

    def _has_clients(self) -> bool:
        return self._stdio is not None and bool(self._stdio.clients)

    def _close_listener(self) -> None:
        if self._listener is None:
            return
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        self._listener = None
        try:
            os.unlink(self._order.socket)
        except FileNotFoundError:
            pass


def end_cgroup(path: str) -> None:
    if path:
        cgroup = open_cgroup(path)
        cgroup.kill()
        cgroup.delete()


def open_log(order: SpawnOrder) -> drivers.LogWriter:
    try:
        return drivers.open_writer(order.log_driver, order.log_path, order.log_options)
    except OSError as error:
        raise RuntimeFailure(
            "log", f"open log: {error.strerror}", path=order.log_path, errno=error.errno
        ) from error


def take_usage(record: ExitStatus, cgroup: Cgroup) -> None:
    """What the cgroup knows of the whole container, where the kernel keeps it; else the first
    process's figures stay."""
    record.usage["oom_kills"] = cgroup.oom_kills()
    record.oom_killed = record.usage["oom_kills"] > 0
    record.usage.update(final_usage(cgroup.paths()))
