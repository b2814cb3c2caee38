"""`/auth`, `/images/search`, `/distribution`: what is asked of registries without pulling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sampan.api import answers, codec
from sampan.api.call import Call
from sampan.api.registry_auth import credentials_from, credentials_of
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.errors import InvalidArgument
from sampan.images.distribution import inspection
from sampan.images.distribution.interface import Repository
from sampan.images.distribution.searching import LIMIT_DEFAULT

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

SEARCH_FILTERS = frozenset(("is-automated", "is-official", "stars"))
_TRUTHS = {"1": True, "true": True, "0": False, "false": False}


class DistributionRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("POST", "/auth", self.login),
            Route("GET", "/images/search", self.search),
            Route("GET", "/distribution/{name...}/json", self.inspect),
            Route("GET", "/distribution/{name...}/manifest", self.manifest),
        ]

    async def login(self, call: Call) -> web.StreamResponse:
        """Try credentials; the answer has the identity token to keep instead, if there is one."""
        call.check_json()
        document = codec.parse(await call.body())
        if not isinstance(document, dict):
            raise InvalidArgument("invalid JSON: an object with credentials is needed")
        result = await self._engine.images.registries.login(credentials_from(document))
        return answers.document({"IdentityToken": result.identity_token, "Status": result.status})

    async def search(self, call: Call) -> web.StreamResponse:
        chosen = search_filter(call.filters())
        limit = call.integer("limit")
        found = await self._engine.images.registries.search(
            call.text("term"),
            LIMIT_DEFAULT if limit is None or limit == 0 else limit,
            credentials_of(call),
        )
        return answers.document([result for result in found if chosen(result)])

    async def inspect(self, call: Call) -> web.StreamResponse:
        repository, wanted = self._named(call)
        return answers.document(await inspection.inspect(repository, wanted))

    async def manifest(self, call: Call) -> web.StreamResponse:
        """The manifest itself, byte for byte; Sampan's own, for `sampan manifest inspect`."""
        repository, wanted = self._named(call)
        fetched = await repository.manifest(wanted)
        return web.Response(
            body=fetched.data,
            headers={
                "Content-Type": fetched.media_type,
                "Docker-Content-Digest": fetched.digest,
            },
        )

    def _named(self, call: Call) -> tuple[Repository, str]:
        reference = inspection.parse_remote(call.parameters[0])
        repository = self._engine.images.registries.repository(
            reference, credentials_of(call), plain=True
        )
        return repository, inspection.wanted_of(reference)


def search_filter(filters: Mapping[str, Sequence[str]]) -> Callable[[Mapping[str, Any]], bool]:
    """What chooses among search results.

    Raises:
        InvalidArgument: a filter or its value is unknown; dockerd's texts.
    """
    for name in filters:
        if name not in SEARCH_FILTERS:
            raise InvalidArgument(f"Invalid filter '{name}'")
    official = _truth(filters, "is-official")
    automated = _truth(filters, "is-automated")
    stars = max((_count(text) for text in filters.get("stars", ())), default=0)

    def chosen(result: Mapping[str, Any]) -> bool:
        return (
            (official is None or result["is_official"] == official)
            and (automated is None or result["is_automated"] == automated)
            and bool(result["star_count"] >= stars)
        )

    return chosen


def _truth(filters: Mapping[str, Sequence[str]], name: str) -> bool | None:
    values = filters.get(name)
    if not values:
        return None
    truths = {_TRUTHS.get(value) for value in values}
    if len(truths) != 1 or None in truths:
        raise InvalidArgument(f"Invalid filter '{name}=[{' '.join(values)}]'")
    return truths.pop()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidArgument(f"Invalid filter 'stars={text}'")
    return int(text)
