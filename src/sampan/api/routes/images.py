"""`/images`: list, inspect, tag, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.platforms import platform_text
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.api.shapes import images as shapes
from sampan.errors import InvalidArgument
from sampan.images.listing import Wanted

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

# Since this version the list counts the containers of an image.
FIRST_CONTAINER_COUNT = (1, 51)


class ImageRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = engine.images

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/images/json", self.list),
            Route("GET", "/images/{name...}/json", self.inspect),
            Route("GET", "/images/{name...}/history", self.history),
            Route("POST", "/images/{name...}/tag", self.tag),
            Route("DELETE", "/images/{name...}", self.remove),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        if "filter" in call.query:  # before 1.28: one reference
            filters.setdefault("reference", []).append(call.text("filter"))
        summaries = [
            shapes.summary(summary)
            for summary in self._images.summaries(
                all=call.flag("all"),
                filters=filters,
                wanted=Wanted(
                    shared_size=call.flag("shared-size"),
                    manifests=call.flag("manifests"),
                ),
            )
        ]
        if call.effective_version >= FIRST_CONTAINER_COUNT:
            for summary in summaries:
                using = self._engine.containers.using_image(summary["Id"])
                summary["Containers"] = len(using)
        return answers.document(
            [versions.answer("image summary", summary, call.version) for summary in summaries]
        )

    async def inspect(self, call: Call) -> web.StreamResponse:
        platform = platform_text(call.text("platform"))
        if platform and call.flag("manifests"):
            raise InvalidArgument(
                "conflicting options: manifests and platform options cannot both be set"
            )
        document = shapes.inspected(
            self._images.inspect(
                call.parameters[0], manifests=call.flag("manifests"), platform=platform
            )
        )
        return answers.document(versions.answer("image", document, call.version))

    async def history(self, call: Call) -> web.StreamResponse:
        platform = platform_text(call.text("platform"))
        return answers.document(self._images.history(call.parameters[0], platform=platform))

    async def tag(self, call: Call) -> web.StreamResponse:
        repository, tag = call.text("repo"), call.text("tag")
        self._images.tag(call.parameters[0], f"{repository}:{tag}" if tag else repository)
        return answers.nothing(201)

    async def remove(self, call: Call) -> web.StreamResponse:
        return answers.document(
            self._images.remove(
                call.parameters[0],
                force=call.flag("force"),
                prune=not call.flag("noprune"),
            )
        )
