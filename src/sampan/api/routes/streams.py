"""`/containers/{id}/attach` and `/containers/{id}/logs`: a container's input and output."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from sampan.api import answers
from sampan.api.call import Call
from sampan.api.frames import Unframer
from sampan.api.hijack import STDERR, Hijack, media_type
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.api.socket_pair import socket_pair
from sampan.engine.detach_keys import parse_detach_keys
from sampan.engine.filters import timestamp_ns
from sampan.engine.numbers import decimal
from sampan.engine.streams import AttachOptions, LogOptions, check_attachable
from sampan.errors import Forbidden, InvalidArgument, SampanError, Unavailable

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

log = logging.getLogger(__name__)

# Before this version output came by WebSocket in text messages, whatever its bytes.
FIRST_BINARY_MESSAGES = (1, 28)


class StreamRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("POST", "/containers/{id}/attach", self.attach),
            Route("GET", "/containers/{id}/attach/ws", self.attach_websocket),
            Route("GET", "/containers/{id}/logs", self.logs),
        ]

    async def attach(self, call: Call) -> web.StreamResponse:
        container = self._containers.get(call.parameters[0])
        check_attachable(container)
        options = attach_options(call)
        terminal = container.config.tty
        hijack = await Hijack.begin(call, media_type(call, terminal=terminal))
        return await hand_over(
            hijack,
            self._containers.attach(container.id, options, hijack.stream()),
            failure_text="Error attaching: {}",
            terminal=terminal,
            number=STDERR,
        )

    async def logs(self, call: Call) -> web.StreamResponse:
        options = log_options(call)
        container = self._containers.get(call.parameters[0])
        chunks = self._containers.logs(container.id, options)
        return await answers.stream(call, media_type(call, terminal=container.config.tty), chunks)

    async def attach_websocket(self, call: Call) -> web.StreamResponse:
        """Attach for browsers: messages carry plain bytes, without frame headers.

        A client that closes has had its say: what it sent reaches the container, and the session ends.
        """
        check_origin(call)
        container = self._containers.get(call.parameters[0])
        check_attachable(container)
        options = attach_options(call)
        websocket = web.WebSocketResponse(compress=False)
        if not websocket.can_prepare(call.request).ok:
            raise InvalidArgument("bad request: this connection is to be upgraded to a WebSocket")
        websocket.headers.update(call.answer_headers)
        call.begun = True
        await websocket.prepare(call.request)
        near, stream = socket_pair()
        reader, writer = await asyncio.open_connection(sock=near)
        binary = call.effective_version >= FIRST_BINARY_MESSAGES
        try:
            await self._containers.attach(container.id, options, stream)
            carrying_in = asyncio.create_task(_websocket_to_socket(websocket, writer))
            carrying_out = asyncio.create_task(
                _socket_to_websocket(
                    reader,
                    websocket,
                    framed=not container.config.tty,
                    kind=WSMsgType.BINARY if binary else WSMsgType.TEXT,
                )
            )
            try:
                if not options.stdin:
                    ways = {carrying_in, carrying_out}
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                else:  # what hangs up loses input that is on its way
                    await asyncio.wait({carrying_out})
            finally:
                for way in (carrying_in, carrying_out):
                    way.cancel()
                await asyncio.gather(carrying_in, carrying_out, return_exceptions=True)
        finally:
            writer.close()
        await websocket.close()
        return websocket


def check_origin(call: Call) -> None:
    """Refuse what a web page of somebody else's asks for: browsers let any page open a WebSocket anywhere.

    Raises:
        Forbidden: the page's origin is not the address that the request is for.
    """
    origin = call.header("Origin")
    if origin and origin.partition("://")[2].lower() != call.header("Host").lower():
        raise Forbidden(
            f"a WebSocket for a page of {origin} is refused: other origins get no access"
        )


async def hand_over(
    hijack: Hijack, work: Awaitable[None], *, failure_text: str, terminal: bool, number: int
) -> web.StreamResponse:
    """Let the engine take the hijacked stream; its refusal is told in the stream `number`."""
    try:
        await work
    except Unavailable as failure:
        # The shim ended meanwhile, and the stream with it, as for who was attached before.
        log.warning("a session was cut off: %s", failure.message)
    except SampanError as failure:
        await hijack.tell(failure_text.format(failure.message), terminal=terminal, number=number)
    return await hijack.finish()


def attach_options(call: Call) -> AttachOptions:
    """The query of attach.

    Raises:
        InvalidArgument: the detach keys are none.
    """
    keys = call.text("detachKeys")
    parse_detach_keys(keys)
    return AttachOptions(
        stream=call.flag("stream"),
        logs=call.flag("logs"),
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        detach_keys=keys or None,
    )


def log_options(call: Call) -> LogOptions:
    """The query of logs.

    Raises:
        InvalidArgument: no stream is chosen, or a value is none.
    """
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    return LogOptions(
        follow=call.flag("follow"),
        tail=tail_count(call.text("tail")),
        since_ns=moment(call.text("since")),
        until_ns=moment(call.text("until")),
        timestamps=call.flag("timestamps"),
        stdout=stdout,
        stderr=stderr,
        details=call.flag("details"),
    )


def tail_count(text: str) -> int | None:
    """How many lines from the end; all for `all`, and for what is no number, as dockerd has it."""
    return decimal(text)


def moment(text: str) -> int | None:
    """A time of the query in ns; None for none, which "0" is too."""
    return None if text in ("", "0") else timestamp_ns(text)


async def _websocket_to_socket(
    websocket: web.WebSocketResponse, writer: asyncio.StreamWriter
) -> None:
    async for message in websocket:
        if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
            data = message.data
            writer.write(data.encode() if isinstance(data, str) else data)
            await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _socket_to_websocket(
    reader: asyncio.StreamReader,
    websocket: web.WebSocketResponse,
    *,
    framed: bool,
    kind: WSMsgType,
) -> None:
    unframer = Unframer() if framed else None
    while data := await reader.read(64 << 10):
        payload = unframer.feed(data) if unframer else data
        if payload and not websocket.closed:
            with contextlib.suppress(ConnectionError):  # gone; the rest is dropped
                await websocket.send_frame(payload, kind)
