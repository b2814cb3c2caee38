"""Network policies: what they refused, and another one for a network. Not in Docker's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from sampan.api import answers
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.engine.container import Container
from sampan.engine.model import Model
from sampan.engine.network_policies import change_policy

if TYPE_CHECKING:
    from sampan.engine.engine import Engine


class NetworkUpdate(Model):
    """The body of `POST /networks/{id}/update`."""

    network_policy: str = ""


class PolicyRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/policies/denied", self.denied),
            Route("POST", "/networks/{id}/update", self.update),
        ]

    async def update(self, call: Call) -> web.StreamResponse:
        """In force for all in the network when it answers."""
        call.check_json()
        wanted = await call.json(NetworkUpdate)
        await change_policy(
            self._engine.networks,
            self._engine.policies,
            self._engine.containers.get,
            call.parameters[0],
            wanted.network_policy,
        )
        return answers.nothing(200)

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
