"""`/_ping`, `/version`, `/info`, `/events`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.api.shapes import events as shapes
from sampan.engine.events import Event, number_of
from sampan.engine.filters import EVENT_FILTERS, check_names, timestamp_ns

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

PING_HEADERS = {
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}

# Media types of the event stream that a client may ask for, and what stands before a document.
EVENT_STREAMS = {
    "application/json": b"",
    "application/jsonl": b"",
    "application/x-ndjson": b"",
    "application/json-seq": b"\x1e",
}


class SystemRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/_ping", self.ping),
            Route("HEAD", "/_ping", self.ping),
            Route("GET", "/version", self.version),
            Route("GET", "/info", self.info),
            Route("GET", "/events", self.events),
        ]

    async def ping(self, call: Call) -> web.StreamResponse:
        body = "OK" if call.request.method == "GET" else ""
        return answers.text(body, PING_HEADERS)

    async def version(self, call: Call) -> web.StreamResponse:
        return answers.document(versions.answer("version", self._engine.version(), call.version))

    async def info(self, call: Call) -> web.StreamResponse:
        return answers.document(versions.answer("info", self._engine.info(), call.version))

    async def events(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        check_names(filters, EVENT_FILTERS)
        after = number_of(call.text("since"))
        if after is not None:
            self._engine.events.check(after)
        events = self._engine.events.subscribe(
            after=after,
            since_ns=moment(call, "since") if after is None else None,
            until_ns=moment(call, "until"),
            filters=filters,
        )
        content_type = event_stream_type(call.header("Accept"))
        # Listening begins with the first step of the iterator, so that comes before the head.
        first = asyncio.ensure_future(anext(events, None))
        await asyncio.sleep(0)
        try:
            async with answers.Stream(call, content_type) as stream:
                async for event in _all(first, events):
                    document = versions.answer("event", shapes.shown(event), call.version)
                    await stream.write(EVENT_STREAMS[content_type] + answers.encode(document))
                return stream.response
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await answers.close(events)


def moment(call: Call, name: str) -> int | None:
    """A time of the query in ns; unlike in `logs`, "0" is 1970."""
    text = call.text(name)
    return timestamp_ns(text) if text else None


async def _all(
    first: asyncio.Future[Event | None], rest: AsyncIterator[Event]
) -> AsyncIterator[Event]:
    event = await first
    if event is not None:
        yield event
        async for event in rest:
            yield event


def event_stream_type(accept: str) -> str:
    """The first media type of the header that the stream can have; JSON where there is none."""
    for entry in accept.split(","):
        if (wanted := entry.partition(";")[0].strip().lower()) in EVENT_STREAMS:
            return wanted
    return answers.JSON
