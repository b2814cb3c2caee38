"""`/containers`: make, look at, start and stop, remove."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.api.shapes import containers as shapes
from sampan.engine.container import WaitResult
from sampan.engine.filters import PRUNE_FILTERS, check_names, select
from sampan.engine.model import CreateRequest, HostConfig, UpdateConfig
from sampan.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

# As dockerd has it: what fits in there is no configuration.
NO_CONFIG_BYTES = 7


class ContainerRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/containers/json", self.list),
            Route("GET", "/containers/ps", self.list),
            Route("POST", "/containers/create", self.create),
            Route("POST", "/containers/prune", self.prune),
            Route("GET", "/containers/{id}/json", self.inspect),
            Route("GET", "/containers/{id}/top", self.top),
            Route("POST", "/containers/{id}/start", self.start),
            Route("POST", "/containers/{id}/stop", self.stop),
            Route("POST", "/containers/{id}/restart", self.restart),
            Route("POST", "/containers/{id}/kill", self.kill),
            Route("POST", "/containers/{id}/pause", self.pause),
            Route("POST", "/containers/{id}/unpause", self.unpause),
            Route("POST", "/containers/{id}/rename", self.rename),
            Route("POST", "/containers/{id}/update", self.update),
            Route("POST", "/containers/{id}/resize", self.resize),
            Route("POST", "/containers/{id}/wait", self.wait),
            Route("DELETE", "/containers/{id}", self.remove),
            Route("DELETE", "/containers/{link...}", self.remove),
        ]

    async def create(self, call: Call) -> web.StreamResponse:
        call.check_json()
        request = await call.json(CreateRequest, "create")
        if not (request.image or request.cmd or request.entrypoint):
            raise InvalidArgument("config cannot be empty in order to create a container")
        identity, warnings = await self._containers.create(
            name=call.text("name") or None,
            config=request.container_config(),
            host_config=request.host_config,
            networking=request.networking_config,
            platform=call.text("platform") or None,
        )
        return answers.document({"Id": identity, "Warnings": [*warnings, *call.warnings]}, 201)

    async def list(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        limit = call.integer("limit") or 0
        with_size = call.flag("size")
        chosen = select(
            self._containers.list(),
            all=call.flag("all"),
            limit=max(0, limit),
            filters=filters,
            image_ids={name: self._descendants(name) for name in filters.get("ancestor", ())},
        )
        now_ns = time.time_ns()
        linked = self._engine.links.paths()
        return answers.document(
            [
                versions.answer(
                    "container summary",
                    shapes.summary(
                        container,
                        self._engine.networking.settings(container),
                        image=self._containers.shown_image(container),
                        links=linked.get(container.id, ()),
                        now_ns=now_ns,
                        size=await self._containers.size(container.id) if with_size else None,
                    ),
                    call.version,
                )
                for container in chosen
            ]
        )

    async def inspect(self, call: Call) -> web.StreamResponse:
        container = self._containers.get(call.parameters[0])
        size = await self._containers.size(container.id) if call.flag("size") else None
        document = shapes.inspected(
            container,
            self._engine.networking.settings(container),
            self._containers.layer_directories(container),
            size,
        )
        document["HostConfig"]["Links"] = self._engine.links.shown(container)
        return answers.document(versions.answer("container", document, call.version))

    async def top(self, call: Call) -> web.StreamResponse:
        titles, rows = await self._containers.top(call.parameters[0], call.text("ps_args"))
        return answers.document({"Titles": titles, "Processes": rows})

    async def start(self, call: Call) -> web.StreamResponse:
        host_config = await start_config(call)
        if host_config is None:
            # Nobody's start is to come much later, when the client has long gone.
            with answers.while_there(call):
                await self._containers.turn(call.parameters[0])
            await self._containers.start(call.parameters[0])
        else:
            await self._containers.start(call.parameters[0], host_config)
        return answers.nothing()

    async def stop(self, call: Call) -> web.StreamResponse:
        await self._containers.stop(
            call.parameters[0],
            signal=call.text("signal") or None,
            timeout_s=call.integer("t"),
        )
        return answers.nothing()

    async def restart(self, call: Call) -> web.StreamResponse:
        await self._containers.restart(
            call.parameters[0],
            signal=call.text("signal") or None,
            timeout_s=call.integer("t"),
        )
        return answers.nothing()

    async def kill(self, call: Call) -> web.StreamResponse:
        try:
            await self._containers.kill(call.parameters[0], call.text("signal") or "SIGKILL")
        except Conflict:
            if call.effective_version >= versions.FIRST_KILL_CONFLICT:
                raise
        return answers.nothing()

    async def pause(self, call: Call) -> web.StreamResponse:
        await self._containers.pause(call.parameters[0])
        return answers.nothing()

    async def unpause(self, call: Call) -> web.StreamResponse:
        await self._containers.unpause(call.parameters[0])
        return answers.nothing()

    async def rename(self, call: Call) -> web.StreamResponse:
        await self._containers.rename(call.parameters[0], call.text("name"))
        return answers.nothing()

    async def update(self, call: Call) -> web.StreamResponse:
        call.check_json()
        change = await call.json(UpdateConfig, "update")
        warnings = await self._containers.update(call.parameters[0], change)
        return answers.document({"Warnings": warnings or None})

    async def resize(self, call: Call) -> web.StreamResponse:
        rows, columns = terminal_size(call)
        await self._containers.resize(call.parameters[0], rows, columns)
        return answers.nothing(200)

    async def wait(self, call: Call) -> web.StreamResponse:
        """The head goes out when the wait is registered, so a client may start the container then."""
        ended = self._containers.wait(call.parameters[0], call.text("condition"))
        try:
            async with answers.Stream(call, answers.JSON) as stream:
                document = versions.answer("wait", wait_document(await ended), call.version)
                await stream.write(answers.encode(document))
                return stream.response
        finally:
            ended.cancel()

    async def remove(self, call: Call) -> web.StreamResponse:
        if call.flag("link"):
            self._engine.links.remove(call.parameters[0])
            return answers.nothing()
        await self._containers.remove(
            call.parameters[0],
            force=call.flag("force"),
            volumes=call.flag("v"),
        )
        return answers.nothing()

    async def prune(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        check_names(filters, PRUNE_FILTERS)
        removed, freed = await self._containers.prune(filters)
        return answers.document({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})

    def _descendants(self, reference: str) -> frozenset[str]:
        """The filter `ancestor`: this image and all that are built on its layers."""
        try:
            ancestor = self._engine.images.resolve(reference)
        except NotFound:
            return frozenset()
        below = list(ancestor.layers)
        return frozenset(
            image.id
            for image in [ancestor, *self._engine.images.list(all=True, filters={})]
            if list(image.layers)[: len(below)] == below
        )


async def start_config(call: Call) -> HostConfig | None:
    """What a start brings before 1.24; a body of a few bytes asks for nothing.

    Raises:
        InvalidArgument: a later version; dockerd's text.
    """
    length = call.request.content_length
    if not call.request.can_read_body or (length is not None and length <= NO_CONFIG_BYTES):
        return None
    if call.effective_version >= versions.FIRST_BARE_START:
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and "
            "removed in v1.24"
        )
    return await call.optional_json(HostConfig, "start")


def terminal_size(call: Call) -> tuple[int, int]:
    """(rows, columns) of a resize.

    Raises:
        InvalidArgument: no terminal has such a size.
    """
    rows, columns = call.needed_integer("h"), call.needed_integer("w")
    if not (0 <= rows < 1 << 16 and 0 <= columns < 1 << 16):
        raise InvalidArgument(f"invalid terminal size: {columns}x{rows}")
    return rows, columns


def wait_document(result: WaitResult) -> dict[str, Any]:
    """`{"StatusCode": 0}` and what went wrong."""
    return {
        "Error": {"Message": result.error} if result.error else None,
        "StatusCode": result.exit_code,
    }
