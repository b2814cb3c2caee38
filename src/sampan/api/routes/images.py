"""`/images`: list, inspect, load, save, import, tag, remove."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api import answers, codec, versions
from sampan.api.call import Call
from sampan.api.progress import Progress
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.api.shapes import images as shapes
from sampan.errors import InvalidArgument, Unsupported

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
            Route("GET", "/images/get", self.save),
            Route("GET", "/images/{name...}/get", self.save),
            Route("POST", "/images/load", self.load),
            Route("POST", "/images/create", self.create),
            Route("POST", "/images/{name...}/tag", self.tag),
            Route("DELETE", "/images/{name...}", self.remove),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        filters = call.filters()
        if "filter" in call.query:  # before 1.28: one reference
            filters.setdefault("reference", []).append(call.text("filter"))
        summaries = [
            shapes.summary(summary)
            for summary in self._images.summaries(all=call.flag("all"), filters=filters)
        ]
        if call.effective_version >= FIRST_CONTAINER_COUNT:
            for summary in summaries:
                using = self._engine.containers.using_image(summary["Id"])
                summary["Containers"] = len(using)
        return answers.document(
            [versions.answer("image summary", summary, call.version) for summary in summaries]
        )

    async def inspect(self, call: Call) -> web.StreamResponse:
        image = self._images.resolve(call.parameters[0])
        document = shapes.inspected(image.inspect())
        return answers.document(versions.answer("image", document, call.version))

    async def save(self, call: Call) -> web.StreamResponse:
        """One image of the path, or those of `names`. The first bytes come before the head, so an
        unknown image is a 404."""
        references = call.parameters or [
            name for value in call.texts("names") for name in value.split(",") if name
        ]
        if not references:
            raise InvalidArgument("no image is named")
        chunks = self._images.save(references)
        first = await anext(chunks, b"")
        return await answers.stream(call, "application/x-tar", _chained(first, chunks))

    async def load(self, call: Call) -> web.StreamResponse:
        progress = Progress(call)
        return await progress.run(
            self._images.load(
                call.chunks(),
                quiet=call.flag("quiet"),
                progress=progress.report,
                platform=platform_text(call.text("platform")),
            )
        )

    async def create(self, call: Call) -> web.StreamResponse:
        """Import a root file system. Pulling is not built yet."""
        if call.text("fromImage"):
            raise Unsupported("pulling images is not supported yet; load or import the image")
        source = call.text("fromSrc")
        if source != "-":
            raise Unsupported("importing from a URL is not supported yet; send the tar as body")
        repository, tag = call.text("repo"), call.text("tag")
        image = await self._images.import_(
            call.chunks(),
            reference=(f"{repository}:{tag}" if tag else repository) or None,
            changes=call.texts("changes"),
            message=call.text("message"),
            platform=call.text("platform") or None,
        )
        return answers.document({"status": image.id})

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


def platform_text(given: str) -> str | None:
    """`linux/arm64/v8`, from that or from the JSON that load and save are sent since 1.48.

    Raises:
        InvalidArgument: it is JSON of something else.
    """
    if not given.startswith("{"):
        return given or None
    platform = codec.parse(given.encode())
    parts = [platform.get(name, "") for name in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        raise InvalidArgument(f"invalid platform: {given[:200]}")
    return "/".join(part for part in parts if part)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        if first:
            yield first
        async for chunk in rest:
            yield chunk
    finally:
        await answers.close(rest)
