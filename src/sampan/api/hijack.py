"""A connection's way out of HTTP: attach and exec.

    client                    api                          engine → shim
      POST …/attach  -------->
      (early input)  -------->  held
      101 UPGRADED   <--------  head written, flushed
                                duplicate of the socket  -->  ClientStream, SCM_RIGHTS
                                own descriptor closed
      raw stream     <--------------------------------------> shim

After the hand-over this process has no part in the session, so it outlives the daemon. What is no
plain socket (TLS) cannot be handed over: there the shim gets one end of a socket pair, and `relay`
carries between the other end and the connection.

The head is not HTTP that aiohttp would write: a client without `Upgrade` expects `200 OK` and then
raw bytes, without chunks.
"""

from __future__ import annotations

import asyncio
import os
import socket
from http import HTTPStatus

from aiohttp import web

from sampan.api.answers import NothingMore
from sampan.api.call import Call
from sampan.api.frames import frame
from sampan.api.relay import Relay
from sampan.api.socket_pair import socket_pair
from sampan.shim.streams import ClientStream

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

STDOUT, STDERR = 1, 2

# Since this version the Content-Type says whether frames have headers.
FIRST_MULTIPLEXED_TYPE = (1, 42)


def media_type(call: Call, *, terminal: bool) -> str:
    """The Content-Type of a stream of stdout and stderr."""
    if terminal or call.effective_version < FIRST_MULTIPLEXED_TYPE:
        return RAW_STREAM
    return MULTIPLEXED_STREAM


class Hijack:
    """A connection that leaves HTTP. Made with the head sent; `finish` is the handler's answer."""

    def __init__(self, call: Call, status: int) -> None:
        self._call = call
        self._status = status
        self._relay: Relay | None = None

    @classmethod
    async def begin(cls, call: Call, content_type: str) -> Hijack:
        """Send the head. From here on failures are told in the stream.

        Raises:
            ConnectionError: the client went away.
        """
        upgrade = bool(call.header("Upgrade"))
        status = 101 if upgrade else HTTPStatus.OK.value
        transport = call.request.transport
        if transport is None:
            raise ConnectionResetError("the client went away")
        transport.pause_reading()
        call.begun = True
        transport.write(_head(call, content_type, upgrade=upgrade))
        await call.connection.flushed()
        return cls(call, status)

    def stream(self) -> ClientStream:
        """The client's side for the engine, which owns it from here.

        Our own descriptor stays open until `finish`, so that a failure can still be told.

        Raises:
            ConnectionError: the client went away.
        """
        transport = self._call.request.transport
        if transport is None:
            raise ConnectionResetError("the client went away")
        head = self._call.connection.take_held()
        if can_be_handed_over(transport):
            plain = transport.get_extra_info("socket")
            return ClientStream(socket.socket(fileno=os.dup(plain.fileno())), head=head)
        near, stream = socket_pair(head)
        self._relay = Relay(self._call.connection, transport, near)
        return stream

    async def tell(self, message: str, *, terminal: bool, number: int) -> None:
        """Tell the client of a failure: as text on a terminal, else as a frame of a stream."""
        data = f"{message}\r\n".encode()
        if not terminal:
            data = frame(number, data)
        transport = self._call.request.transport
        if transport is not None:
            transport.write(data)
            await self._call.connection.flushed()

    async def finish(self) -> web.StreamResponse:
        """The handler's answer; for a relayed connection only when the session has ended."""
        if self._relay is not None:
            await self._relay.run()
        return NothingMore(self._status)


def can_be_handed_over(transport: asyncio.Transport) -> bool:
    """Whether the bytes of the session are those on the socket."""
    return transport.get_extra_info("sslcontext") is None


def _head(call: Call, content_type: str, *, upgrade: bool) -> bytes:
    lines = ["HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK"]
    lines.append(f"Content-Type: {content_type}")
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    lines += [f"{name}: {value}" for name, value in call.answer_headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
