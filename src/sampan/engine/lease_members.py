"""What was made under a lease: found, and removed when the lease ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from sampan.engine.leases import lease_of
from sampan.errors import NotFound, SampanError

if TYPE_CHECKING:
    from sampan.engine.containers import Containers
    from sampan.engine.execs import Execs
    from sampan.engine.networks import Networks
    from sampan.engine.volumes import Volumes

AT_ONCE = 8


class LeaseMembers:
    """Over the parts of one engine that make things."""

    def __init__(
        self,
        containers: Containers,
        execs: Execs,
        volumes: Volumes,
        networks: Networks | None = None,
    ) -> None:
        self._containers = containers
        self._execs = execs
        self._networks = networks
        self._volumes = volumes

    def of(self, name: str) -> dict[str, list[str]]:
        """IDs and names of what there is, by kind."""
        return {
            "Execs": self._execs.under(name),
            "Containers": [
                container.id
                for container in self._containers.list()
                if container.record.terms.lease == name
            ],
            "Networks": [
                entry.id
                for entry in (self._networks.all() if self._networks else ())
                if lease_of(entry.record.labels) == name
            ],
            "Volumes": [
                volume.name
                for volume in self._volumes.list({})
                if lease_of(volume.record.labels) == name
            ],
        }

    async def end(self, name: str) -> Sequence[str]:
        """Remove all of it, as far as possible; what is left and why."""
        places = asyncio.Semaphore(AT_ONCE)

        async def attempt(what: str, work: Coroutine[Any, Any, None]) -> str:
            async with places:
                try:
                    await work
                except NotFound:
                    return ""
                except (SampanError, OSError) as failure:
                    return f"{what}: {failure}"
                return ""

        left: list[str] = []
        for kind, remove in (
            ("Execs", self._execs.end),
            ("Containers", self._containers.remove_if_there),
            ("Networks", self._remove_network),
            ("Volumes", self._remove_volume),
        ):
            outcomes = await asyncio.gather(
                *(
                    attempt(f"{kind[:-1].lower()} {each}", remove(each))
                    for each in self.of(name)[kind]
                )
            )
            left += [text for text in outcomes if text]
        return left

    async def _remove_network(self, identity: str) -> None:
        assert self._networks is not None
        await self._networks.remove(identity)

    async def _remove_volume(self, name: str) -> None:
        self._volumes.remove(name)
