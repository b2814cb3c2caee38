"""A SOCK_SEQPACKET socket of the shim protocol on the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sampan.shim import protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from sampan.shim.protocol import Message


class Channel:
    """Messages in by callback, messages out by coroutine; owns the socket.

    `on_message` gets each message and its descriptors, and takes out of the list those that it keeps;
    the others are closed. `on_closed` is called once when the peer has gone; neither is called after `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_message: Callable[[Message, list[int]], None],
        on_closed: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._order = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._receive)

    async def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send when the peer has room; messages keep their order, the caller keeps the descriptors.

        Raises:
            OSError: the peer is gone.
        """
        async with self._order:
            packet, memfd = protocol.encode(message)
            try:
                await self._send_packet(packet, fds if memfd is None else [memfd, *fds])
            finally:
                if memfd is not None:
                    protocol.close_all([memfd])

    async def _send_packet(self, packet: bytes, fds: Sequence[int]) -> None:
        while True:
            if self.closed:
                raise BrokenPipeError(32, "the connection is closed")
            try:
                protocol.send_packet(self._sock, packet, fds)
                return
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        room: asyncio.Future[None] = self._loop.create_future()
        fd = self._sock.fileno()
        self._loop.add_writer(fd, resolve, room)
        try:
            await room
        finally:
            self._loop.remove_writer(fd)

    def _receive(self) -> None:
        while not self.closed:
            try:
                received = protocol.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self.close()
                self._on_closed()
                return
            message, fds = received
            try:
                self._on_message(message, fds)
            finally:
                protocol.close_all(fds)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


def resolve(future: asyncio.Future[None]) -> None:
    """Let who waits go on; harmless when nobody does any more."""
    if not future.done():
        future.set_result(None)
