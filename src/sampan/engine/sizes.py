"""How much containers wrote: the walk over a writable layer, and not twice over one at rest.

While no process of a container runs, its layer stays as it is, so the sum is kept until the next
start. Layers of images are never walked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from sampan.engine.container import Container
from sampan.errors import NotFound
from sampan.snapshots.overlay import Snapshotter

_Moment = tuple[int, int]
"""A container's last start and end: what it wrote belongs to them."""


class WrittenSizes:
    """The bytes in the writable layers of containers."""

    def __init__(self, snapshots: Snapshotter) -> None:
        self._snapshots = snapshots
        self._known: WeakKeyDictionary[Container, tuple[_Moment, int]] = WeakKeyDictionary()

    async def of(self, containers: Iterable[Container]) -> dict[str, int]:
        """By container ID; 0 for one that is removed meanwhile."""
        sizes: dict[str, int] = {}
        unknown: dict[Container, _Moment | None] = {}
        for container in containers:
            moment = _at_rest(container)
            known = self._known.get(container)
            if known is not None and known[0] == moment:
                sizes[container.id] = known[1]
            else:
                unknown[container] = moment
        if unknown:
            walked = await asyncio.to_thread(self._walk, [one.id for one in unknown])
            sizes |= walked
            for container, moment in unknown.items():
                if moment is not None and moment == _at_rest(container):
                    self._known[container] = moment, walked[container.id]
        return sizes

    def forget(self, container: Container) -> None:
        """Something else than the container itself changed its layer."""
        self._known.pop(container, None)

    def _walk(self, identities: list[str]) -> dict[str, int]:
        sizes = {}
        for identity in identities:
            try:
                sizes[identity] = self._snapshots.usage_bytes(identity)
            except NotFound:
                sizes[identity] = 0
        return sizes


def _at_rest(container: Container) -> _Moment | None:
    """When the container ran last; None while it runs, or is being started."""
    if container.state.running or container.lock.locked():
        return None
    return container.state.started_ns, container.state.finished_ns
