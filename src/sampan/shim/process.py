"""The shim of one container: parent of its first process, keeper of its output and exit status."""

from __future__ import annotations

import ctypes
import os
import resource  # noqa: F401  os.wait4 imports it at its first use, at the end of a container
import signal
import socket
import time

from sampan.errors import RuntimeFailure, SampanError
from sampan.linux import syscalls as kernel
from sampan.linux.cgroups.manager import open_cgroup
from sampan.logs import drivers
from sampan.shim import control, execs, exit_record, launching, protocol
from sampan.shim.helper import Helper, as_failure
from sampan.shim.loop import READ, Loop
from sampan.shim.protocol import ExecRequest, ExitStatus, SpawnOrder, Started, StreamOptions
from sampan.shim.stdio import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.linux.cgroups.manager import Cgroup
    from sampan.shim.control import Control
    from sampan.shim.protocol import Message

PEAK_MEMORY_FILES = (("memory", "memory.max_usage_in_bytes"), ("", "memory.peak"))
PR_SET_NAME = 15  # linux/prctl.h
PROCESS_NAME = ctypes.create_string_buffer(b"sampan-shim")


def run_now(packet: bytes, fds: list[int]) -> None:
    """Be the shim that a `spawn` packet asks for, from fork to the end of the container."""
    become_shim()
    serve_order(packet, fds, Helper(launching.work))


def run_spare(source: socket.socket) -> None:
    """Be ready to be a shim: whatever takes time is done before a packet comes over `source`."""
    become_shim()
    helper = Helper(launching.work, ahead=True)
    received = protocol.receive_packet(source)
    source.close()
    if received is not None:
        serve_order(*received, helper)


def become_shim() -> None:
    """Leave the zygote's session; only SIGKILL ends a shim.

    When a machine goes down everybody gets SIGTERM: the container may take its time, and its last
    words are logged.
    """
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    kernel.prctl(PR_SET_NAME, ctypes.addressof(PROCESS_NAME))


def serve_order(packet: bytes, fds: list[int], helper: Helper) -> None:
    helper.begin(packet, fds[:1] if packet == protocol.MEMFD else [])
    message = protocol.decode(packet, fds)
    order = SpawnOrder.from_dict(message["request"])
    streams = [StreamOptions.from_dict(each) for each in message["streams"]]
    shim = Shim(order, socket.socket(fileno=fds[0]), helper)
    if shim.start(list(zip(fds[1:], streams, strict=True))):
        shim.serve()


class Shim:
    """States: starting, serving, lingering (ended, but a client still takes output)."""

    def __init__(
        self,
        order: SpawnOrder,
        connection: socket.socket,
        helper: Helper,
    ) -> None:
        """`helper` has begun to make the container."""
        self._order = order
        self._helper = helper
        self._loop = Loop()
        self._controls: list[Control] = []
        self._first = self._add_control(connection)
        self._listener: socket.socket | None = None
        self._children: dict[int, Callable[[int, Any], None]] = {}
        self._execs: dict[str, execs.ExecProcess] = {}
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
        self._pid = made["pid"]
        self._started = Started(
            id=order.id,
            pid=self._pid,
            shim_pid=os.getpid(),
            started_at_ns=time.time_ns(),
            directory=order.directory,
            cgroup_path=order.cgroup_path,
            trace=made["marks"],
            warnings=made["warnings"],
        )
        self._first.send("started", started=self._started.to_dict())
        self._children[self._pid] = self._container_ended
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
        elif kind == "exec":
            return {"pid": self._exec(connection, message, fds)}
        elif kind == "hello":
            return self._hello()
        elif kind == "resize":
            assert self._stdio is not None
            self._stdio.resize(message["rows"], message["columns"])
        elif kind == "signal":
            self._signal(message["number"])
        elif kind in ("exec_resize", "exec_signal", "exec_kill_tree"):
            self._exec_request(kind, message)
        else:
            raise ValueError(f"the shim knows no request {kind!r}")
        return {}

    def _hello(self) -> Message:
        assert self._started is not None
        return {
            "version": protocol.PROTOCOL_VERSION,
            "started": self._started.to_dict(),
            "execs": [{"id": each.id, "pid": each.pid} for each in self._execs.values()],
            "exited": self._status.to_dict() if self._status is not None else None,
            "log_lost": self._log_error,
        }

    def _attach(self, connection: Control, message: Message, fds: list[int]) -> None:
        options = StreamOptions.from_dict(message["stream"])
        assert self._stdio is not None
        self._stdio.attach(fds.pop(0), options, self._stream_ended(connection, options.number))

    def _exec(self, connection: Control, message: Message, fds: list[int]) -> int:
        request = ExecRequest.from_dict(message["process"])
        client = None
        if fds:
            options = StreamOptions.from_dict(message["stream"])
            client = (fds[0], options, self._stream_ended(connection, options.number))
        made = execs.start(
            self._loop,
            request,
            client,
            order=self._order,
            container_pid=self._pid,
        )
        if client is not None:
            fds.pop(0)
        self._execs[made.id] = made
        self._children[made.pid] = lambda status, _: self._exec_ended(made, status)
        return made.pid

    def _exec_request(self, kind: str, message: Message) -> None:
        running = self._execs.get(message["exec"])
        if running is None:
            return  # it has ended, the report is on its way
        if kind == "exec_resize":
            running.resize(message["rows"], message["columns"])
        elif kind == "exec_signal":
            running.signal(message["number"])
        else:
            running.kill_tree()

    def _signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass

    def _stream_ended(self, connection: Control, number: int) -> Callable[[str], None]:
        return lambda reason: connection.send("stream_end", stream=number, reason=reason)

    def _broadcast(self, kind: str, **body: object) -> None:
        for each in list(self._controls):
            each.send(kind, **body)

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
            handler = self._children.pop(pid, None)
            if handler is not None:
                handler(status, usage)

    def _exec_ended(self, ended: execs.ExecProcess, status: int) -> None:
        ended.ended()
        del self._execs[ended.id]
        # Told before the client's stream ends, for the client then asks the daemon for the code.
        self._broadcast("exec_exited", exec=ended.id, exit_code=exit_code(status))
        if ended.stdio is not None:
            ended.stdio.finish()

    def _container_ended(self, status: int, usage: Any) -> None:
        ended_at_ns = time.time_ns()
        assert self._stdio is not None
        if self._order.cgroup_path:
            self._cgroup = open_cgroup(self._order.cgroup_path)
        if not self._order.own_pid_namespace:
            self._kill_rest()  # else the kernel has killed all with the first process
        self._stdio.drain()
        self._stdio.finish_log()
        record = ExitStatus(
            exit_code=exit_code(status),
            exited_at_ns=ended_at_ns,
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

    def _kill_rest(self) -> None:
        if self._cgroup is not None:
            self._cgroup.kill()
        for running in list(self._execs.values()):
            running.signal(signal.SIGKILL)
            _, status = os.waitpid(running.pid, 0)
            del self._children[running.pid]
            self._exec_ended(running, status)

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
    """What the cgroup knows of the whole container, where the kernel keeps it.

    Single files, not `Cgroup.stats`: this stands between the end and everybody who waits for it.
    """
    record.oom_killed = cgroup.oom_kills() > 0
    paths = cgroup.paths()
    for kind, name in PEAK_MEMORY_FILES:
        if kind not in paths:
            continue
        try:
            with open(f"{paths[kind]}/{name}", "rb", buffering=0) as file:
                record.usage["peak_memory_bytes"] = int(file.read(32))
                return
        except FileNotFoundError:
            continue  # memory.peak is there from Linux 5.19; else the first process's figure stays


def exit_code(status: int) -> int:
    """A wait status as a shell counts: 128 + signal for a killed process."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
