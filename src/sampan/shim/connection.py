"""The daemon's side of one container's shim: a control connection as futures and coroutines."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from sampan.errors import Unavailable
from sampan.linux.cgroups.manager import open_cgroup
from sampan.shim import exit_record, protocol
from sampan.shim.conversation import Conversation
from sampan.shim.exec_order import ExecOrder
from sampan.shim.protocol import ExitStatus, Started

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from sampan.shim.exec_order import ExecRequest
    from sampan.shim.protocol import Message
    from sampan.shim.streams import ClientStream

KILLED = 137  # 128 + SIGKILL: what is left to say when nobody saw the end


class ShimConnection(Conversation):
    """One running container, as seen from the daemon.

    `exited` is resolved once, with the container's status, when exit.json is written and the log is
    complete; also when the shim died (then with code 137, error "shim died", after the cgroup was
    killed). `gone` is resolved when the cgroup is removed too and the same container may be spawned
    again. `trace` is (stage, CLOCK_MONOTONIC ns) in order. `log_error` says why output could not be
    logged (empty: all is well); `on_log_lost` is called with it when that begins.
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
        self.exited: asyncio.Future[ExitStatus] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.log_error = ""
        self.on_log_lost: Callable[[str], None] | None = None
        self._exec_config: Message = {}
        self._pidfd = -1
        self._sockets: list[int] = []
        self._burial: asyncio.Task[None] | None = None
        super().__init__(sock, "the shim")

    # Requests

    async def attach(self, stream: ClientStream) -> None:
        """Hand a client's socket to the shim; returns when the shim has it. Closed here in any case.

        Raises:
            Unavailable: the shim is gone.
        """
        try:
            await self._hand_over("attach", stream)
        finally:
            stream.close()

    @property
    def pidfd(self) -> int:
        """The descriptor of the container's first process; ours still.

        Raises:
            Unavailable: the container has ended.
        """
        if self._pidfd < 0:
            raise self._unavailable()
        return self._pidfd

    @property
    def sockets(self) -> tuple[int, ...]:
        """The sockets that the start brought (`ShimRequest.resolver`), ours still; until `drop_sockets`."""
        return tuple(self._sockets)

    def drop_sockets(self) -> None:
        """Close them: the resolver has them."""
        sockets, self._sockets = self._sockets, []
        protocol.close_all(sockets)

    def exec_order(self, request: ExecRequest) -> tuple[ExecOrder, int]:
        """The order for a further process in this container, and the container's pidfd, ours still.

        Raises:
            Unavailable: the container has ended.
        """
        pidfd = self.pidfd
        order = ExecOrder(
            request=request.to_dict(),
            container_id=self.id,
            container_pid=self.pid,
            cgroup_path=self.cgroup_path,
            config=self._exec_config,
        )
        return order, pidfd

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
        self._forget_process()
        await super().close()

    async def hello(self) -> None:
        """Introduce a new daemon to a running shim and learn what it keeps."""
        self._begun = True
        self.started.set_result(None)
        answer = await self.request("hello", version=protocol.PROTOCOL_VERSION)
        self._take_started(answer["started"], [])
        self.log_error = answer.get("log_lost") or ""
        if answer.get("exited"):
            self._resolve_exit(ExitStatus.from_dict(answer["exited"]))

    async def _hand_over(self, kind: str, stream: ClientStream) -> Message:
        options = self._register(stream)
        try:
            return await self.request(kind, [stream.sock.fileno()], stream=options)
        except BaseException:
            self._streams.pop(options["number"], None)
            raise

    # What the shim says

    def _event(self, message: Message, fds: list[int]) -> None:
        kind = message.get("type")
        if kind == "exited":
            self._resolve_exit(ExitStatus.from_dict(message["status"]))
        elif kind == "log_lost":
            self._log_lost(message["error"])
        elif kind == "process":
            self._take_process(fds)

    def _take_started(self, data: Message, fds: list[int]) -> None:
        started = Started.from_dict(data)
        self.id = started.id
        self.name = f"the shim of container {self.id[:12]}"
        self.pid = started.pid
        self.shim_pid = started.shim_pid
        self.started_at_ns = started.started_at_ns
        self.directory = started.directory
        self.cgroup_path = started.cgroup_path
        self.trace = [(stage, at) for stage, at in started.trace]
        self.warnings = list(started.warnings)
        self._exec_config = started.exec_config
        self._take_process(fds)
        self._sockets, fds[:] = fds[:], []

    def _take_process(self, fds: list[int]) -> None:
        if fds and self._pidfd < 0:
            self._pidfd = fds.pop(0)

    def _resolve_exit(self, status: ExitStatus) -> None:
        self._forget_process()
        if not self.exited.done():
            self.exited.set_result(status)

    def _log_lost(self, error: str) -> None:
        self.log_error = error
        if self.on_log_lost is not None:
            self.on_log_lost(error)

    # The end of the connection

    def _end(self) -> None:
        self._forget_process()
        if self.exited.done() or not self.shim_pid:
            self._set_gone()
        else:
            self._burial = asyncio.get_running_loop().create_task(self._bury())

    def _forget_process(self) -> None:
        fd, self._pidfd = self._pidfd, -1
        if fd >= 0:
            os.close(fd)
        self.drop_sockets()

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
