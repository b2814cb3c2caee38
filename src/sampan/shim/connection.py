"""The daemon's side of one shim: a control connection as futures and coroutines."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from sampan.errors import SampanError, Unavailable
from sampan.linux.cgroups.manager import open_cgroup
from sampan.shim import exit_record, protocol
from sampan.shim.channel import Channel
from sampan.shim.protocol import ExecRequest, ExitStatus, Started

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from sampan.shim.protocol import Message
    from sampan.shim.streams import ClientStream

KILLED = 137  # 128 + SIGKILL: what is left to say when nobody saw the end


class NotBegun(Exception):
    """The request never reached a shim: nothing was done, it can be made again."""


class ShimConnection:
    """One running container, as seen from the daemon.

    `exited` is resolved once, with the container's status, when exit.json is written and the log is
    complete; also when the shim died (then with code 137, error "shim died", after the cgroup was
    killed). `gone` is resolved when the cgroup is removed too and the same container may be spawned
    again. `trace` is (stage, CLOCK_MONOTONIC ns) in order. `log_error` says why output could not be
    logged (empty: all is well); `on_log_lost` is called with it when that begins. `execs` holds the processes of `exec` that run.
    """

    def __init__(self, sock: socket.socket, *, socket_path: str, cgroup_path: str = "") -> None:
        loop = asyncio.get_running_loop()
        self.id = ""
        self.pid = 0
        self.shim_pid = 0
        self.started_at_ns = 0
        self.directory = ""
        self.cgroup_path = cgroup_path
        self.socket_path = socket_path
        self.trace: list[tuple[str, int]] = []
        self.warnings: list[str] = []
        self.execs: dict[str, ExecHandle] = {}
        self.exited: asyncio.Future[ExitStatus] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.log_error = ""
        self.on_log_lost: Callable[[str], None] | None = None
        self.started: asyncio.Future[None] = loop.create_future()
        self._begun = False
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._streams: dict[int, ClientStream] = {}
        self._last_number = 0
        self._burial: asyncio.Task[None] | None = None
        self._channel = Channel(sock, on_message=self._receive, on_closed=self._lost)

    # Requests

    async def attach(self, stream: ClientStream) -> None:
        """Hand a client's socket to the shim; returns when the shim has it. Closed here in any case.

        Raises:
            Unavailable: the shim is gone.
        """
        try:
            await self._hand_over("attach", {}, stream)
        finally:
            stream.close()

    async def exec(self, request: ExecRequest, stream: ClientStream | None) -> ExecHandle:
        """Start a further process in the container; returns when it has exec'd.

        Without a stream its input and output are /dev/null. On failure the stream stays open and the
        caller's, who tells the client through it. Cancelled, it leaves a process that may run; its
        exit is still told through `execs`.

        Raises:
            RuntimeFailure: it could not be started; stage "exec" with errno ENOENT or EACCES for
                the file itself.
            Unavailable: the shim is gone.
        """
        handle = ExecHandle(self, request.id)
        self.execs[request.id] = handle
        try:
            answer = await self._hand_over("exec", {"process": request.to_dict()}, stream)
        except SampanError:
            self.execs.pop(request.id, None)
            raise
        handle.pid = answer["pid"]
        if stream is not None:
            stream.close()
        return handle

    async def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; nothing happens without a terminal, or after the end."""
        await self._request_while_alive("resize", rows=rows, columns=columns)

    async def signal(self, number: int) -> None:
        """Send a signal to the container's first process; one that has ended takes none."""
        await self._request_while_alive("signal", number=number)

    async def _request_while_alive(self, kind: str, **body: Any) -> None:
        """A request that has no sense after the end, and needs none to be told so."""
        try:
            await self.request(kind, **body)
        except Unavailable:
            if not (self.exited.done() or self.gone.done() or self._burial is not None):
                raise

    async def close(self) -> None:
        """Stop watching; shim and container go on. Pending `exited` stays pending."""
        self._channel.close()
        self._fail_requests()

    def adopt_streams(self, streams: Sequence[ClientStream]) -> list[dict[str, Any]]:
        """Number streams that go with the spawn request; their options for the message."""
        return [self._register(stream) for stream in streams]

    async def hello(self) -> None:
        """Introduce a new daemon to a running shim and learn what it keeps."""
        self._begun = True
        self.started.set_result(None)
        answer = await self.request("hello", version=protocol.PROTOCOL_VERSION)
        self._take_started(answer["started"])
        self.log_error = answer.get("log_lost") or ""
        for running in answer.get("execs", ()):
            handle = ExecHandle(self, running["id"])
            handle.pid = running["pid"]
            self.execs[handle.id] = handle
        if answer.get("exited"):
            self._resolve_exit(ExitStatus.from_dict(answer["exited"]))

    async def request(self, kind: str, fds: Sequence[int] = (), **body: Any) -> Message:
        """One request and its answer.

        Raises:
            RuntimeFailure: the shim refused or failed.
            Unavailable: the shim is gone.
        """
        number = self._next_number()
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            await self._channel.send({"type": kind, "seq": number, **body}, fds)
            return await answer
        except OSError as error:
            raise self._unavailable() from error
        finally:
            self._answers.pop(number, None)

    async def _hand_over(
        self, kind: str, body: dict[str, Any], stream: ClientStream | None
    ) -> Message:
        if stream is None:
            return await self.request(kind, **body)
        options = self._register(stream)
        try:
            return await self.request(kind, [stream.sock.fileno()], stream=options, **body)
        except BaseException:
            self._streams.pop(options["number"], None)
            raise

    def _register(self, stream: ClientStream) -> dict[str, Any]:
        number = self._next_number()
        self._streams[number] = stream
        return stream.options(number).to_dict()

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    # What the shim says

    def _receive(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "answer":
            self._answer(message["seq"], message)
        elif kind == "failed":
            self._failed(message)
        elif kind == "begun":
            self._begun = True
        elif kind == "started":
            self._take_started(message["started"])
            if not self.started.done():
                self.started.set_result(None)
        elif kind == "exited":
            self._resolve_exit(ExitStatus.from_dict(message["status"]))
        elif kind == "exec_exited":
            self._exec_exited(message["exec"], message["exit_code"])
        elif kind == "stream_end":
            self._end_stream(message["stream"], message["reason"])
        elif kind == "log_lost":
            self._log_lost(message["error"])

    def _answer(self, number: int, message: Message) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _failed(self, message: Message) -> None:
        failure = protocol.failure_from_dict(message)
        number = message.get("seq")
        waiter: asyncio.Future[Any] | None = self.started
        if number is not None:
            waiter = self._answers.get(number)
        if waiter is not None and not waiter.done():
            waiter.set_exception(failure)

    def _take_started(self, data: Message) -> None:
        started = Started.from_dict(data)
        self.id = started.id
        self.pid = started.pid
        self.shim_pid = started.shim_pid
        self.started_at_ns = started.started_at_ns
        self.directory = started.directory
        self.cgroup_path = started.cgroup_path
        self.trace = [(stage, at) for stage, at in started.trace]
        self.warnings = list(started.warnings)

    def _resolve_exit(self, status: ExitStatus) -> None:
        if not self.exited.done():
            self.exited.set_result(status)

    def _exec_exited(self, exec_id: str, exit_code: int) -> None:
        handle = self.execs.pop(exec_id, None)
        if handle is not None and not handle.exited.done():
            handle.exited.set_result(exit_code)

    def _log_lost(self, error: str) -> None:
        self.log_error = error
        if self.on_log_lost is not None:
            self.on_log_lost(error)

    def _end_stream(self, number: int, reason: str) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None and stream.on_end is not None:
            stream.on_end(reason)

    # The end of the connection

    def _lost(self) -> None:
        self._fail_requests()
        for exec_id in list(self.execs):
            self._exec_exited(exec_id, KILLED)
        for number in list(self._streams):
            self._end_stream(number, protocol.CLOSED)
        if not self.started.done():
            self.started.set_exception(self._unavailable() if self._begun else NotBegun())
        if self.exited.done() or not self.shim_pid:
            self._set_gone()
        else:
            self._burial = asyncio.get_running_loop().create_task(self._bury())

    def _fail_requests(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._unavailable())
        self._answers.clear()

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"the shim of container {self.id[:12]} is gone")

    async def _bury(self) -> None:
        """The shim died without a word: end what is left of the container, then say so.

        The kernel has already killed the first process with the shim (PR_SET_PDEATHSIG), but with the
        host's PID namespace others may be left.
        """
        try:
            await asyncio.to_thread(end_cgroup, self.cgroup_path)
        finally:
            remove_socket(self.socket_path)
            status = exit_record.read(self.directory) or ExitStatus(
                exit_code=KILLED, exited_at_ns=time.time_ns(), error="shim died"
            )
            self._resolve_exit(status)
            self._set_gone()

    def _set_gone(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class ExecHandle:
    """A process started by `ShimConnection.exec`; `exited` gives its exit code (137: the shim died)."""

    def __init__(self, connection: ShimConnection, exec_id: str) -> None:
        self.id = exec_id
        self.pid = 0
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._connection = connection

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal; nothing happens without one, or after its end."""
        await self._request("exec_resize", rows=rows, columns=columns)

    async def signal(self, number: int) -> None:
        """Send it a signal; one that has ended takes none."""
        await self._request("exec_signal", number=number)

    async def kill_tree(self) -> None:
        """Kill it and all its descendants that are still its descendants."""
        await self._request("exec_kill_tree")

    async def _request(self, kind: str, **body: Any) -> None:
        try:
            await self._connection.request(kind, exec=self.id, **body)
        except Unavailable:
            if not self.exited.done():
                raise


def end_cgroup(path: str) -> None:
    """Kill what runs in a container's cgroup and remove it; blocks."""
    if not path:
        return
    cgroup = open_cgroup(path)
    cgroup.kill()
    cgroup.delete()


def remove_socket(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
