"""`/containers/{id}/stats`: what a container uses, once or every second."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.engine import Engine


class StatsRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._stats = engine.stats

    def routes(self) -> list[Route[Handler]]:
        return [Route("GET", "/containers/{id}/stats", self.stats)]

    async def stats(self, call: Call) -> web.StreamResponse:
        one_shot = call.flag("one-shot")
        if call.flag("stream", True):
            if one_shot:
                raise InvalidArgument("cannot have stream=true and one-shot=true")
            return await answers.stream(call, answers.JSON, await answers.begun(self._lines(call)))
        document = await self._stats.once(call.parameters[0], one_shot=one_shot)
        return answers.document(versions.answer("stats", document, call.version))

    async def _lines(self, call: Call) -> AsyncIterator[bytes]:
        async for document in self._stats.stream(call.parameters[0]):
            yield answers.encode(versions.answer("stats", dict(document), call.version))
