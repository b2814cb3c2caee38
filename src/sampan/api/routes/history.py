"""`/containers/{id}/history`: how a container ended, also one that is gone; our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api import answers
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.api.shapes import history as shapes

if TYPE_CHECKING:
    from sampan.engine.engine import Engine


class HistoryRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route[Handler]]:
        return [Route("GET", "/containers/{id}/history", self.history)]

    async def history(self, call: Call) -> web.StreamResponse:
        """The runs that ended, the last first; with `limit`, so many."""
        limit = call.integer("limit")
        records = await self._engine.history.of(
            call.parameters[0], limit=limit if limit and limit > 0 else -1
        )
        return answers.document([shapes.shown(record) for record in records])
