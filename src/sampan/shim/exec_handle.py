"""The daemon's side of a process of `exec`: a connection to its keeper."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sampan.errors import Unavailable
from sampan.shim.connection import KILLED
from sampan.shim.conversation import Conversation

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from sampan.shim.protocol import Message


class ExecHandle(Conversation):
    """A process started by `Zygote.exec`.

    `exited` gives its exit code (137: its keeper died, and it with that). `on_exit` is called with
    it before any client of it can know of its end. Process and client go on when the daemon ends; a
    later daemon knows nothing of them.
    """

    def __init__(
        self,
        sock: socket.socket,
        exec_id: str,
        on_exit: Callable[[int], None] | None = None,
        on_gone: Callable[[ExecHandle], object] | None = None,
    ) -> None:
        self.id = exec_id
        self.pid = 0
        self.keeper_pid = 0
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._on_exit = on_exit
        self._on_gone = on_gone
        super().__init__(sock, f"the keeper of exec {exec_id[:12]}")

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal; nothing happens without one, or after its end."""
        await self._request_while_alive("resize", rows=rows, columns=columns)

    async def signal(self, number: int) -> None:
        """Send it a signal; one that has ended takes none."""
        await self._request_while_alive("signal", number=number)

    async def kill_tree(self) -> None:
        """Kill it and all its descendants that are still its descendants."""
        await self._request_while_alive("kill_tree")

    async def _request_while_alive(self, kind: str, **body: int) -> None:
        try:
            await self.request(kind, (), **body)
        except Unavailable:
            if not self.exited.done():
                raise

    async def close(self) -> None:
        """Stop watching; process and client go on. Pending `exited` stays pending."""
        await super().close()
        self._forget()

    def _take_started(self, data: Message, fds: list[int]) -> None:
        self.pid, self.keeper_pid = data["pid"], data["keeper_pid"]
        if "exit_code" in data:
            self._resolve_exit(data["exit_code"])

    def _failed(self, message: Message) -> None:
        if message.get("seq") is None:
            self._streams.clear()  # the stream is the caller's again
        super()._failed(message)

    def _event(self, message: Message, fds: list[int]) -> None:
        if message.get("type") == "exec_exited":
            self._resolve_exit(message["exit_code"])

    def _resolve_exit(self, exit_code: int) -> None:
        if self.exited.done():
            return
        self.exited.set_result(exit_code)
        if self._on_exit is not None:
            self._on_exit(exit_code)

    def _end(self) -> None:
        if self.pid:
            self._resolve_exit(KILLED)
        self._forget()

    def _forget(self) -> None:
        if self._on_gone is not None:
            self._on_gone(self)
