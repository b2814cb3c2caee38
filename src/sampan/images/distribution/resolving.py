"""Host names to addresses; a name that was judged by its addresses keeps them.

A registry may be insecure because all its addresses are this machine's own. Whoever answers DNS must
not be able to give those for the judgement and others for the connection.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from sampan.images.distribution.settings import Address

PINNED_LIMIT = 1000


class Resolver(AbstractResolver):
    """The system's resolver, but for the names that are pinned."""

    def __init__(self) -> None:
        self._system = ThreadedResolver()
        self._pinned: dict[str, Sequence[Address]] = {}

    async def addresses(self, host: str) -> list[Address]:
        """All addresses of a name.

        Raises:
            OSError: there are none.
        """
        found = await self._system.resolve(host, 0, family=socket.AF_UNSPEC)
        return [ipaddress.ip_address(item["host"].partition("%")[0]) for item in found]

    def pin(self, host: str, addresses: Sequence[Address]) -> None:
        """Let a name mean these addresses from now on; none: what the system says."""
        self._pinned.pop(host, None)
        if addresses:
            if len(self._pinned) >= PINNED_LIMIT:
                self._pinned.clear()
            self._pinned[host] = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        pinned = self._pinned.get(host)
        if pinned is None:
            return await self._system.resolve(host, port, family=family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in pinned
        ]

    async def close(self) -> None:
        await self._system.close()
