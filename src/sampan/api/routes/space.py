"""`/system/df`, `/images/prune`, and what keeps or gives back disk space."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.api.shapes import containers as container_shapes
from sampan.api.shapes import images as image_shapes
from sampan.api.shapes import usage as shapes
from sampan.engine.usage import ContainersUsage, ImagesUsage
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

TYPES = ("container", "image", "volume", "build-cache")
FIRST_TYPES = (1, 42)


class SpaceRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._usage = engine.usage
        self._upkeep = engine.images.upkeep

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("GET", "/system/df", self.usage),
            Route("GET", "/system/df/why", self.why),
            Route("GET", "/system/df/account", self.account),
            Route("POST", "/images/prune", self.prune_images),
            Route("POST", "/images/{name...}/pin", self.pin),
            Route("POST", "/images/{name...}/unpin", self.unpin),
            Route("POST", "/build/prune", self.prune_builds),
        ]

    async def usage(self, call: Call) -> web.StreamResponse:
        types = wanted_types(call)
        images = self._usage.images() if "image" in types else None
        containers = await self._usage.containers() if "container" in types else None
        report = shapes.report(
            types,
            images=images,
            image_items=[] if images is None else self._image_items(images, call),
            containers=containers,
            container_items=[] if containers is None else self._container_items(containers),
            volume_items=await self._volume_items() if "volume" in types else [],
            leftovers=self._usage.leftovers(),
        )
        return answers.document(
            shapes.for_version(report, call.version, verbose=call.flag("verbose"))
        )

    async def why(self, call: Call) -> web.StreamResponse:
        """Not in Docker's API: what holds an object, or when it goes."""
        wanted = call.text("object")
        if not wanted:
            raise InvalidArgument("no object is named")
        return answers.document(await self._engine.space.why(wanted))

    async def account(self, call: Call) -> web.StreamResponse:
        """Not in Docker's API: every byte below the data root by what it belongs to."""
        return answers.document(await self._engine.space.account())

    async def prune_images(self, call: Call) -> web.StreamResponse:
        done, freed = await self._upkeep.prune(call.filters())
        self._engine.events.emit("image", "prune", "", {"reclaimed": str(freed)})
        return answers.document({"ImagesDeleted": done or None, "SpaceReclaimed": freed})

    async def prune_builds(self, call: Call) -> web.StreamResponse:
        """There is no build cache."""
        return answers.document({"CachesDeleted": [], "SpaceReclaimed": 0})

    async def pin(self, call: Call) -> web.StreamResponse:
        """Not in Docker's API: the disk budget leaves this image alone."""
        self._upkeep.pin(call.parameters[0], True)
        return answers.nothing()

    async def unpin(self, call: Call) -> web.StreamResponse:
        self._upkeep.pin(call.parameters[0], False)
        return answers.nothing()

    def _image_items(self, usage: ImagesUsage, call: Call) -> list[dict[str, Any]]:
        items = []
        for image in usage.images:
            size, shared = usage.spaces[image.id]
            summary = image_shapes.summary({**image.summary(), "Size": size, "SharedSize": shared})
            item = versions.answer("image summary", summary, call.version)
            item["Containers"] = usage.containers.get(image.id, 0)  # here in all versions
            items.append(item)
        return items

    async def _volume_items(self) -> list[dict[str, Any]]:
        volumes = {volume.name: volume for volume in self._engine.volumes.list({})}
        return [
            {
                **volumes[name].document(),
                "UsageData": {"RefCount": users, "Size": size},
            }
            for name, (users, size) in sorted((await self._engine.volumes.usage()).items())
            if name in volumes
        ]

    def _container_items(self, usage: ContainersUsage) -> list[dict[str, Any]]:
        now_ns = time.time_ns()
        return [
            container_shapes.summary(
                container,
                self._engine.networking.settings(container),
                image=self._engine.containers.shown_image(container),
                now_ns=now_ns,
                size=usage.sizes.get(container.id),
            )
            for container in self._engine.containers.list()
        ]


def wanted_types(call: Call) -> Mapping[str, None]:
    """The object types that are asked for; all when none is named, or before they could be.

    Raises:
        InvalidArgument: there is no such type.
    """
    named = call.texts("type")
    if not named or call.effective_version < FIRST_TYPES:
        return dict.fromkeys(TYPES)
    for name in named:
        if name not in TYPES:
            raise InvalidArgument(f"unknown object type: {name}")
    return dict.fromkeys(named)
