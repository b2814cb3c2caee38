"""`/leases`: Sampan's own. What a client makes under a lease goes when the client is gone; see `engine.leases`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from sampan.api import answers
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.engine.leases import Lease, document
from sampan.engine.model import Model
from sampan.engine.terms import parse_span

if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine


class LeaseCreate(Model):
    """The body of `POST /leases/create`; the TTL in ns, 0 for the usual one."""

    name: str
    ttl: int = msgspec.field(default=0, name="TTL")


class LeaseRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._leases = engine.leases
        self._members = engine.lease_members

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/leases", self.list),
            Route("POST", "/leases/create", self.create),
            Route("GET", "/leases/{name}", self.inspect),
            Route("POST", "/leases/{name}/renew", self.renew),
            Route("POST", "/leases/{name}/hold", self.hold),
            Route("DELETE", "/leases/{name}", self.remove),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        return answers.document([self._document(lease) for lease in self._leases.list()])

    async def create(self, call: Call) -> web.StreamResponse:
        wanted = await call.json(LeaseCreate)
        lease = self._leases.create(wanted.name, wanted.ttl)
        return answers.document(self._document(lease), 201)

    async def inspect(self, call: Call) -> web.StreamResponse:
        return answers.document(self._document(self._leases.get(call.parameters[0])))

    async def renew(self, call: Call) -> web.StreamResponse:
        return answers.document(self._document(self._leases.renew(call.parameters[0])))

    async def hold(self, call: Call) -> web.StreamResponse:
        """The lease, made if need be, lives as long as this answer goes on: a line now, a line at its end.

        Whoever closes the connection ends it; an engine that closes does not.
        """
        ttl_ns = parse_span("ttl", call.text("ttl")) if call.text("ttl") else 0
        lease = self._leases.hold(call.parameters[0], ttl_ns)
        try:
            async with answers.Stream(call, answers.JSON) as stream:
                await stream.write(answers.encode(self._document(lease)))
                await lease.gone.wait()
                await stream.write(answers.encode({"Name": lease.name, "Status": "gone"}))
                return stream.response
        finally:
            self._leases.let_go(lease, by_client=call.connection.transport is None)

    async def remove(self, call: Call) -> web.StreamResponse:
        await self._leases.remove(call.parameters[0])
        return answers.nothing()

    def _document(self, lease: Lease) -> dict[str, Any]:
        return document(lease, self._leases.left_s(lease), self._members.of(lease.name))
