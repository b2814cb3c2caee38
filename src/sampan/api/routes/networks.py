"""`/networks`: list, create, inspect, remove, prune, connect, disconnect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.engine import network_filters
from sampan.engine.model import EndpointConfig, Model
from sampan.engine.network_plan import NetworkCreate
from sampan.errors import NotFound

if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.engine.networks import Entry

# Before this version the list said which containers are in each network.
FIRST_SHORT_LIST = (1, 28)
FIRST_STATUS = (1, 52)


class Connect(Model):
    """The body of `POST /networks/{id}/connect`."""

    container: str = ""
    endpoint_config: EndpointConfig | None = None


class Disconnect(Model):
    """The body of `POST /networks/{id}/disconnect`."""

    container: str = ""
    force: bool = False


class NetworkRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._networks = engine.networks
        self._connections = engine.connections
        self._leases = engine.leases

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/networks", self.list),
            Route("POST", "/networks/create", self.create),
            Route("POST", "/networks/prune", self.prune),
            Route("GET", "/networks/{id}", self.inspect),
            Route("DELETE", "/networks/{id}", self.remove),
            Route("POST", "/networks/{id}/connect", self.connect),
            Route("POST", "/networks/{id}/disconnect", self.disconnect),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        chosen = network_filters.select(self._networks.all(), call.filters())
        long = call.effective_version < FIRST_SHORT_LIST
        shown = [self._shown(entry, call, containers=long) for entry in chosen]
        for document in shown:
            versions.answer("network summary", document, call.version)
        return answers.document(shown)

    async def inspect(self, call: Call) -> web.StreamResponse:
        entry = self._networks.get(call.parameters[0])
        if call.text("scope") not in ("", "local"):
            raise NotFound(f"network {call.parameters[0]} not found")
        return answers.document(self._shown(entry, call, containers=True))

    async def create(self, call: Call) -> web.StreamResponse:
        call.check_json()
        wanted = await call.json(NetworkCreate)
        with self._leases.labelled(wanted.labels or {}) as labels:
            identity, warning = await self._networks.create(
                msgspec.structs.replace(wanted, driver=wanted.driver or "bridge", labels=labels)
            )
        return answers.document({"Id": identity, "Warning": warning}, 201)

    async def remove(self, call: Call) -> web.StreamResponse:
        await self._networks.remove(call.parameters[0])
        return answers.nothing()

    async def prune(self, call: Call) -> web.StreamResponse:
        chosen = network_filters.prunable(self._networks.all(), call.filters())
        names = await self._networks.prune(chosen)
        return answers.document({"NetworksDeleted": names or None})

    async def connect(self, call: Call) -> web.StreamResponse:
        call.check_json()
        wanted = await call.json(Connect)
        await self._connections.connect(
            call.parameters[0], wanted.container, wanted.endpoint_config
        )
        return answers.nothing(200)

    async def disconnect(self, call: Call) -> web.StreamResponse:
        call.check_json()
        wanted = await call.json(Disconnect)
        await self._connections.disconnect(call.parameters[0], wanted.container, force=wanted.force)
        return answers.nothing(200)

    def _shown(self, entry: Entry, call: Call, *, containers: bool) -> dict[str, Any]:
        names = None
        if containers:
            network = entry.network
            found = network.attachments() if network else ()
            names = {
                attachment.container_id: self._engine.networking.name_of(attachment.container_id)
                for attachment in found
            }
        status = containers and call.effective_version >= FIRST_STATUS
        document = self._networks.document(entry, names, status=status)
        return versions.answer("network", document, call.version)
