"""`/exec`: further processes in containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.hijack import STDOUT, Hijack, media_type
from sampan.api.router import Route
from sampan.api.routes.containers import terminal_size
from sampan.api.routes.streams import hand_over
from sampan.api.server import Handler
from sampan.api.shapes import execs as shapes
from sampan.engine.model import ExecConfig, Model

if TYPE_CHECKING:
    from sampan.engine.engine import Engine


class ExecStart(Model):
    """The body of `POST /exec/{id}/start`."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


class ExecRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._execs = engine.execs

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("POST", "/containers/{id}/exec", self.create),
            Route("POST", "/exec/{id}/start", self.start),
            Route("POST", "/exec/{id}/resize", self.resize),
            Route("GET", "/exec/{id}/json", self.inspect),
            Route("DELETE", "/exec/{id}", self.end),
        ]

    async def create(self, call: Call) -> web.StreamResponse:
        config = await call.json(ExecConfig, "exec")
        identity = await self._execs.create(call.parameters[0], config)
        return answers.document({"Id": identity}, 201)

    async def start(self, call: Call) -> web.StreamResponse:
        options = await call.optional_json(ExecStart) or ExecStart()
        entry = self._execs.get(call.parameters[0])
        if options.detach:
            await self._execs.start(entry.id)
            return answers.nothing(200)
        terminal = entry.config.tty
        hijack = await Hijack.begin(call, media_type(call, terminal=terminal))
        return await hand_over(
            hijack,
            self._execs.start(
                entry.id,
                console_size=options.console_size,
                stream=hijack.stream(),
            ),
            failure_text="{}",
            terminal=terminal,
            number=STDOUT,  # where dockerd writes it
        )

    async def resize(self, call: Call) -> web.StreamResponse:
        rows, columns = terminal_size(call)
        await self._execs.resize(call.parameters[0], rows, columns)
        return answers.nothing(200)

    async def inspect(self, call: Call) -> web.StreamResponse:
        document = shapes.inspected(self._execs.get(call.parameters[0]))
        return answers.document(versions.answer("exec", document, call.version))

    async def end(self, call: Call) -> web.StreamResponse:
        """Sampan's own: the process and all its descendants are gone with the answer."""
        await self._execs.end(call.parameters[0])
        return answers.nothing()
