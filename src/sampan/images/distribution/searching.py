"""Searching an index: Docker Hub's, or the `/v1/search` of a registry that has one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import ClientResponse
from yarl import URL

from sampan.errors import InvalidArgument, SampanError
from sampan.images.distribution.answers import answered
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Temporary, failure_of
from sampan.images.distribution.host import Host, patiently
from sampan.images.distribution.transport import Request, Security, read_limited
from sampan.oci.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN, OFFICIAL

ANSWER_LIMIT = 4 << 20
LIMIT_DEFAULT, LIMIT_MAX = 25, 100


def split_term(term: str) -> tuple[str, str]:
    """The index and what is looked for there.

    Raises:
        InvalidArgument: dockerd's text for a term with a scheme.
    """
    if "://" in term:
        raise InvalidArgument('invalid repository name (ex: "registry.domain.tld/myrepos")')
    head, slash, rest = term.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        if head in (DEFAULT_DOMAIN, LEGACY_DOMAIN):
            return DEFAULT_DOMAIN, rest.removeprefix(f"{OFFICIAL}/")
        return head, rest
    return DEFAULT_DOMAIN, term.removeprefix(f"{OFFICIAL}/")


def check_limit(limit: int) -> None:
    """
    Raises:
        InvalidArgument: dockerd's text.
    """
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidArgument(f"Limit {limit} is outside the range of [1, {LIMIT_MAX}]")


async def search(
    host: Host, term: str, limit: int, credentials: Credentials | None
) -> list[dict[str, Any]]:
    """See `client.Registries.search`."""
    failure: SampanError | None = None
    for base, security in await _candidates(host):
        query = urlencode({"q": term, "n": limit})
        url = URL(f"{str(base).rstrip('/')}/v1/search?{query}", encoded=True)
        headers = {"X-Docker-Token": "true", "Accept": "application/json"}
        if credentials is not None and credentials.username and credentials.password:
            headers["Authorization"] = credentials.basic
        request = Request("GET", url, security, headers)
        try:
            response = await patiently(lambda request=request: _asked(host, request))  # type: ignore[misc]
        except Temporary as error:
            failure = error
            continue
        data = await read_limited(response, ANSWER_LIMIT, request.shown)
        return _results(data, request.shown)[:limit]
    assert failure is not None
    raise failure


async def _asked(host: Host, request: Request) -> ClientResponse:
    response = await host.transport.open(request)
    if response.status == 200:
        return response
    answer = await answered(response, request.shown)
    failure = failure_of(answer)
    if isinstance(failure, Temporary):
        raise failure
    raise RegistryFailure(f"{request.shown}: Unexpected status code {answer.status}")


async def _candidates(host: Host) -> list[tuple[URL, Security]]:
    if host.place == DEFAULT_DOMAIN:
        return [(URL(f"https://{LEGACY_DOMAIN}"), Security(LEGACY_DOMAIN, False))]
    return await host.candidates()


def _results(data: bytes, shown: str) -> list[dict[str, Any]]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryFailure(f"{shown}: {error}") from error
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise RegistryFailure(f"{shown}: the answer has no results")
    return [_result(item) for item in results if isinstance(item, dict)]


def _result(item: dict[str, Any]) -> dict[str, Any]:
    stars = item.get("star_count")
    return {
        "star_count": stars if isinstance(stars, int) else 0,
        "is_official": item.get("is_official") is True,
        "name": str(item.get("name") or ""),
        "is_automated": item.get("is_automated") is True,
        "description": str(item.get("description") or ""),
    }
