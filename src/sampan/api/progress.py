"""Answers that tell how long work goes: JSON documents, one a line, a failure as the last one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from sampan.api import answers
from sampan.api.call import Call
from sampan.api.errors import text_of
from sampan.errors import SampanError


class Progress:
    """Runs work that reports; the head is sent with the first report.

    So work that fails before it reported anything is refused with a status, as any request.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._reports: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def report(self, document: dict[str, Any]) -> None:
        """Tell the client; the callback for the work."""
        self._reports.put_nowait(document)

    async def run(self, work: Coroutine[Any, Any, object]) -> web.StreamResponse:
        """Do the work and forward its reports; ends the work when the client leaves."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._reports.put_nowait(None))
        own = asyncio.current_task()
        assert own is not None
        # A registry may be long in saying its first word; the client may not wait for it.
        self._call.connection.call_when_lost(own.cancel)
        try:
            async with AsyncExitStack() as stack:
                stream: answers.Stream | None = None
                while (document := await self._reports.get()) is not None:
                    if stream is None:
                        stream = answers.Stream(self._call, answers.JSON)
                        await stack.enter_async_context(stream)
                    await stream.write(answers.encode(document))
                if stream is None:
                    await task
                    return web.Response(headers={"Content-Type": answers.JSON})
                if (failure := task.exception()) is not None:
                    await stream.write(answers.encode(_failed(failure)))
                return stream.response
        finally:
            self._call.connection.call_when_lost(None)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _failed(failure: BaseException) -> dict[str, Any]:
    if not isinstance(failure, SampanError):
        raise failure
    text = text_of(failure)
    return {"errorDetail": {"message": text}, "error": text}
