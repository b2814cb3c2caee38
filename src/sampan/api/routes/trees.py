"""`/commit`, and what a container changed or has: `/containers/{id}/changes`, `…/export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from sampan.api import answers, codec
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.engine.commit import CommitRequest
from sampan.engine.model import ContainerConfig, CreateRequest

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

# Before this version a commit did not pause unless asked to.
FIRST_PAUSING = (1, 13)


class TreeRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers
        self._trees = engine.containers.trees

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("POST", "/commit", self.commit),
            Route("GET", "/containers/{id}/changes", self.changes),
            Route("GET", "/containers/{id}/export", self.export),
        ]

    async def commit(self, call: Call) -> web.StreamResponse:
        """The body is a container's configuration, or nothing."""
        config = await _given_config(call)
        repository, tag = call.text("repo"), call.text("tag")
        container = self._containers.get(call.text("container"))
        image = await self._trees.commit(
            container,
            CommitRequest(
                reference=f"{repository}:{tag}" if repository and tag else repository,
                author=call.text("author"),
                message=call.text("comment"),
                changes=call.texts("changes"),
                pause=call.flag("pause", call.effective_version >= FIRST_PAUSING),
                config=config,
            ),
        )
        return answers.document({"Id": image.id}, 201)

    async def changes(self, call: Call) -> web.StreamResponse:
        found = await self._trees.changes(self._containers.get(call.parameters[0]))
        document: list[dict[str, Any]] | None = [
            {"Path": _shown(change.path), "Kind": int(change.kind)} for change in found
        ]
        return answers.document(document or None)

    async def export(self, call: Call) -> web.StreamResponse:
        container = self._containers.get(call.parameters[0])
        chunks = self._trees.export(container)
        return await answers.stream(call, "application/octet-stream", await answers.begun(chunks))


async def _given_config(call: Call) -> ContainerConfig | None:
    """The configuration of the body; None for one that says nothing, `{}` or `null` (docker CLI)."""
    body = (await call.body()).strip() if call.request.can_read_body else b""
    if not body or codec.parse(body) is None:
        return None
    call.check_json()
    config = codec.decode(body, CreateRequest).container_config()
    return None if config == ContainerConfig() else config


def _shown(path: str) -> str:
    """A path as JSON can say it: what is no UTF-8 becomes the replacement character, as Go has it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
