"""One client's connection: aiohttp's protocol, with what Docker's API needs beside it.

- Bytes that a client sends behind a request that will leave HTTP (attach, exec start) are the
  session's, not a next request: they are held back from the parser, and reading pauses, until the
  handler takes them with the socket or the request turns out not to be hijacked. `framing` knows
  where such a request ends, also behind others that are not answered yet.
- A handler that streams for long can ask to be cancelled when the client goes away.
- What is no HTTP gets an answer in Docker's shape.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from sampan.api.framing import Framing
from sampan.api.peers import requester_of
from sampan.engine.requester import Requester


class Connection(RequestHandler):
    """aiohttp's server protocol for one connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.held = b""
        self._framing = Framing()
        self._answered = 0
        self._on_lost: Callable[[], object] | None = None
        self.requester: Requester | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.requester = requester_of(transport)
        super().connection_made(transport)

    # Holding back what follows a hijacking request

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp's own call, to go on with what its parser has
            super().data_received(data)
        elif self._framing.hijacked:
            self._hold(data)
        else:
            if self._framing.lost and self._is_idle():
                self._framing.go_on()
            end = self._framing.take(data)
            super().data_received(data if end == len(data) else data[:end])
            if self._framing.hijacked:
                self._hold(data[end:])

    def _is_idle(self) -> bool:
        """Whether what comes now begins a request: aiohttp's loop waits for one."""
        return self._waiter is not None and not self._waiter.done()

    def _hold(self, data: bytes) -> None:
        self.held += data
        if self.transport is not None:
            self.transport.pause_reading()

    def take_held(self) -> bytes:
        """What the client sent behind the request; now the caller's."""
        held, self.held = self.held, b""
        return held

    def request_answered(self) -> None:
        """A request was an ordinary one after all; if it is the one that what is held follows,
        those are requests."""
        self._answered += 1
        if self._framing.hijacked and self._answered == self._framing.requests:
            self._framing.go_on()
            held = self.take_held()
            if self.transport is not None:
                self.transport.resume_reading()
            if held:
                self.data_received(held)

    # The client's leaving

    def call_when_lost(self, callback: Callable[[], object] | None) -> None:
        """Have `callback` called when the connection ends; at most one, None for none."""
        self._on_lost = callback
        if callback is not None and self.transport is None:
            callback()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._on_lost is not None:
            self._on_lost()

    def end_stream(self) -> None:
        """End an answer that goes on, as if the client had left."""
        if self._on_lost is not None:
            self._on_lost()

    async def flushed(self) -> None:
        """Wait until everything written is with the kernel.

        Raises:
            ConnectionError: the client went away before.
        """
        if self.transport is None:
            raise ConnectionResetError("the client went away")
        self.transport.set_write_buffer_limits(high=0)
        await self._drain_helper()

    # What is no HTTP

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            self.log_exception("Error handling a request", exc_info=exc)
        text = (message or "internal error").split("\n", 1)[0]
        response = web.Response(
            status=status,
            body=json.dumps({"message": text}).encode() + b"\n",
            content_type="application/json",
        )
        response.force_close()
        return response


class ApiProtocolFactory(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)
