"""Images on their way in and out: pull, push, import, load, save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api import answers, codec
from sampan.api.call import Call
from sampan.api.platforms import platform_text
from sampan.api.progress import Progress
from sampan.api.registry_auth import HEADER, credentials_from, credentials_of
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.images.distribution.credentials import Credentials


class ImageTransferRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._images = engine.images

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/images/get", self.save),
            Route("GET", "/images/{name...}/get", self.save),
            Route("POST", "/images/load", self.load),
            Route("POST", "/images/create", self.create),
            Route("POST", "/images/{name...}/push", self.push),
        ]

    async def create(self, call: Call) -> web.StreamResponse:
        """Pull an image (`fromImage`), or import a root file system (`fromSrc`)."""
        if call.text("fromImage"):
            return await self._pull(call)
        return await self._import(call)

    async def _pull(self, call: Call) -> web.StreamResponse:
        """Without a tag or digest: all tags of the repository."""
        progress = Progress(call)
        return await progress.run(
            self._images.pull(
                call.text("fromImage"),
                tag=call.text("tag") or None,
                platform=platform_text(call.text("platform")),
                credentials=credentials_of(call),
                progress=progress.report,
                all_tags=True,
            )
        )

    async def _import(self, call: Call) -> web.StreamResponse:
        """From the body (`fromSrc=-`), or from a URL that the engine fetches."""
        source = call.text("fromSrc")
        repository, tag = call.text("repo"), call.text("tag")
        reference = (f"{repository}:{tag}" if tag else repository) or None
        platform = platform_text(call.text("platform"))
        if source == "-":
            image = await self._images.import_(
                call.chunks(),
                reference=reference,
                changes=call.texts("changes"),
                message=call.text("message"),
                platform=platform,
            )
            return answers.document({"status": image.id})
        progress = Progress(call)
        return await progress.run(
            self._images.import_url(
                source,
                reference=reference,
                changes=call.texts("changes"),
                message=call.text("message"),
                platform=platform,
                progress=progress.report,
            )
        )

    async def push(self, call: Call) -> web.StreamResponse:
        """Push the tag of the query or of the name; without any, all tags of the repository."""
        progress = Progress(call)
        return await progress.run(
            self._images.push(
                call.parameters[0],
                tag=call.text("tag") or None,
                credentials=await _pushing_credentials(call),
                progress=progress.report,
                platform=platform_text(call.text("platform")),
            )
        )

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

    async def save(self, call: Call) -> web.StreamResponse:
        """One image of the path, or those of `names`. The first bytes come before the head, so an
        unknown image is a 404."""
        references = call.parameters or [
            name for value in call.texts("names") for name in value.split(",") if name
        ]
        if not references:
            raise InvalidArgument("no image is named")
        chunks = await answers.begun(self._images.save(references))
        return await answers.stream(call, "application/x-tar", chunks)


async def _pushing_credentials(call: Call) -> Credentials | None:
    """From the header, or from the body, where clients of old sent them instead."""
    if call.header(HEADER):
        return credentials_of(call)
    body = await call.body()
    document = codec.parse(body) if body.strip() else None
    if not isinstance(document, dict):
        return None
    return credentials_from(document) or None
