"""Answers: JSON documents, nothing, and streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

from sampan.api.call import Call

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """JSON with the newline that ends every document of dockerd's."""
    return _encoder.encode(value) + b"\n"


def document(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=encode(value), status=status, headers={"Content-Type": JSON})


def nothing(status: int = 204) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status)


def text(body: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A plain text answer."""
    return web.Response(body=body.encode(), headers={"Content-Type": TEXT, **(headers or {})})


class NothingMore(web.StreamResponse):
    """For a request to which nothing more is written: its connection ends, or has left HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(status=status)
        self.force_close()

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return


@contextlib.contextmanager
def while_there(call: Call) -> Iterator[None]:
    """Cancel the task that is in here when the client leaves."""
    task = asyncio.current_task()
    assert task is not None
    call.connection.call_when_lost(task.cancel)
    try:
        yield
    finally:
        call.connection.call_when_lost(None)


class Stream:
    """An answer that goes on: the head first, then chunks as they come.

    While it is open, the client's leaving cancels the task that opened it: what it waits for is of
    interest to nobody then. Use `async with`; the head is sent on the way in.
    """

    def __init__(
        self,
        call: Call,
        content_type: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._call = call
        self.response = web.StreamResponse(
            status=status,
            headers={**call.answer_headers, **(headers or {}), "Content-Type": content_type},
        )

    async def __aenter__(self) -> Stream:
        task = asyncio.current_task()
        assert task is not None
        self._call.connection.call_when_lost(task.cancel)
        self._call.begun = True
        await self.response.prepare(self._call.request)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._call.connection.call_when_lost(None)

    async def write(self, chunk: bytes) -> None:
        """Send a chunk; waits while the client does not read."""
        await self.response.write(chunk)


async def stream(
    call: Call,
    content_type: str,
    chunks: AsyncIterator[bytes],
    *,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Answer with everything `chunks` yields, closing it however this ends."""
    try:
        async with Stream(call, content_type, headers=headers) as answer:
            async for chunk in chunks:
                await answer.write(chunk)
            return answer.response
    finally:
        await close(chunks)


async def begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks, the first of which was made already: what cannot begin fails here, before
    the answer's head is sent."""
    first = await anext(chunks, b"")
    return _chained(first, chunks)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        if first:
            yield first
        async for chunk in rest:
            yield chunk
    finally:
        await close(rest)


async def close(iterator: AsyncIterator[Any]) -> None:
    """End a generator that may not have been read to its end."""
    ending = getattr(iterator, "aclose", None)
    if ending is not None:
        await ending()
