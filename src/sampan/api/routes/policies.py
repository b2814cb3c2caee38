"""`/policies/denied`: what network policies refused. Not in Docker's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from sampan.api import answers
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.engine.container import Container

if TYPE_CHECKING:
    from sampan.engine.engine import Engine


class PolicyRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route[Handler]]:
        return [Route("GET", "/policies/denied", self.denied)]

    async def denied(self, call: Call) -> web.StreamResponse:
        """Of the containers that are named by `container`, or of all, the latest first.

        An entry is of a destination (`Address`, `Protocol`, `Port`, `Packets`) or of a name that was
        not looked up (`Name`, `Packets`: how often it was asked for); `Last` is Unix time.
        """
        wanted = call.texts("container")
        containers = [self._engine.containers.get(reference) for reference in wanted]
        found: list[dict[str, Any]] = []
        for container in containers or self._engine.containers.list():
            found += await self._denied(container)
        return answers.document(sorted(found, key=lambda entry: entry["Last"], reverse=True))

    async def _denied(self, container: Container) -> list[dict[str, Any]]:
        common = {"ContainerID": container.id, "ContainerName": container.name}
        return [
            {
                **common,
                "Name": entry.name,
                "Address": entry.address,
                "Protocol": entry.protocol,
                "Port": entry.port,
                "Packets": entry.packets,
                "Last": entry.last_s,
            }
            for entry in await self._engine.policies.denied(container)
        ]
