"""Carries a session between a connection that cannot be handed over and a socket pair.

For TLS: the shim speaks to one end of a socket pair, this to the other. Both directions end on
their own: a client that half-closes still gets the output.
"""

from __future__ import annotations

import asyncio
import socket

from sampan.api.connection import Connection

CHUNK_BYTES = 64 << 10


class Relay(asyncio.Protocol):
    """Takes over a connection's transport; `run` until the session is over."""

    def __init__(
        self, connection: Connection, transport: asyncio.Transport, near: socket.socket
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._near = near
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False

    async def run(self) -> None:
        """Carry until the shim has closed its end and the client has everything."""
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        carrying_in = asyncio.create_task(self._carry_in())
        try:
            await self._carry_out()
        finally:
            carrying_in.cancel()
            await asyncio.gather(carrying_in, return_exceptions=True)
            self._near.close()
            if not self._lost:
                self._transport.set_protocol(self._connection)

    async def _carry_out(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._lost:
            try:
                data = await loop.sock_recv(self._near, CHUNK_BYTES)
            except ConnectionError:
                return
            if not data:
                return
            await self._writable.wait()
            if not self._lost:
                self._transport.write(data)

    async def _carry_in(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await self._input.get():
                await loop.sock_sendall(self._near, data)
                if self._input.empty() and not self._lost:
                    self._transport.resume_reading()
            self._near.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the shim closed its end; output ends the session

    # asyncio.Protocol, in the connection's place

    def data_received(self, data: bytes) -> None:
        self._transport.pause_reading()
        self._input.put_nowait(data)

    def eof_received(self) -> bool:
        self._end_input()
        return True  # half-closed: the output goes on

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._writable.set()
        self._end_input()
        # Wakes _carry_out, which waits for the shim: it sees the end of the stream.
        self._near.shutdown(socket.SHUT_RDWR)
        self._connection.connection_lost(exc)

    def _end_input(self) -> None:
        self._input.put_nowait(b"")
