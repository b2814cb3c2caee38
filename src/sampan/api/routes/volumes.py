"""`/volumes`: list, create, inspect, remove, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.engine.model import Model
from sampan.errors import Unavailable

if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.engine.volumes import Volume

# Since this version `prune` leaves volumes alone that have a name.
FIRST_ANONYMOUS_PRUNE = (1, 42)


class VolumeCreate(Model):
    """The body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = msgspec.field(default={}, name="DriverOpts")
    labels: dict[str, str] = msgspec.field(default={})


class VolumeRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._volumes = engine.volumes
        self._leases = engine.leases

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/volumes", self.list),
            Route("POST", "/volumes/create", self.create),
            Route("POST", "/volumes/prune", self.prune),
            Route("GET", "/volumes/{name}", self.inspect),
            Route("PUT", "/volumes/{name}", self.update),
            Route("DELETE", "/volumes/{name}", self.remove),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        volumes = [_shown(volume, call) for volume in self._volumes.list(call.filters())]
        return answers.document({"Volumes": volumes, "Warnings": None})

    async def create(self, call: Call) -> web.StreamResponse:
        call.check_json()
        wanted = await call.json(VolumeCreate)
        with self._leases.labelled(wanted.labels) as labels:
            volume = self._volumes.create(
                wanted.name, driver=wanted.driver, options=wanted.driver_opts, labels=labels
            )
        return answers.document(_shown(volume, call), 201)

    async def inspect(self, call: Call) -> web.StreamResponse:
        return answers.document(_shown(self._volumes.get(call.parameters[0]), call))

    async def update(self, call: Call) -> web.StreamResponse:
        """For cluster volumes only, and there is no cluster."""
        raise Unavailable(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
            "connect this node to swarm and try again."
        )

    async def remove(self, call: Call) -> web.StreamResponse:
        self._volumes.remove(call.parameters[0], force=call.flag("force"))
        return answers.nothing()

    async def prune(self, call: Call) -> web.StreamResponse:
        names, freed = await self._volumes.prune(
            call.filters(), named=call.effective_version < FIRST_ANONYMOUS_PRUNE
        )
        return answers.document({"VolumesDeleted": list(names) or None, "SpaceReclaimed": freed})


def _shown(volume: Volume, call: Call) -> dict[str, Any]:
    return versions.answer("volume", volume.document(), call.version)
