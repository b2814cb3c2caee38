"""One registry, or mirror: where it is, what it asks for, and requests to it that it authorises.

It is found by asking `/v2/`: over https, and where it may be insecure over http after that. What is
found is kept for some minutes, so most requests go out at once and with a valid token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from aiohttp import ClientResponse
from yarl import URL

from sampan.errors import SampanError
from sampan.images.distribution.answers import answered
from sampan.images.distribution.challenges import Challenge, of_scheme, parse_challenges
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import (
    RegistryFailure,
    Temporary,
    Unreachable,
    failure_of,
)
from sampan.images.distribution.settings import RegistrySettings, host_of
from sampan.images.distribution.single_flight import SingleFlight
from sampan.images.distribution.tokens import Asked, Tokens
from sampan.images.distribution.transport import (
    Body,
    Request,
    Security,
    Transport,
    same_server,
)
from sampan.oci.reference import DEFAULT_DOMAIN, Reference

log = logging.getLogger(__name__)

HUB = "registry-1.docker.io"
FOUND_LIFETIME_S = 600.0
# Pauses before a small request is made again, and the longest that a registry may ask for.
PAUSES_S = (0.3, 1.0)
RETRY_AFTER_LIMIT_S = 30.0

Result = TypeVar("Result")


class Site(NamedTuple):
    """Where a registry answers, what it asked for there, and until when that is believed."""

    base: URL
    security: Security
    challenges: Sequence[Challenge]
    expires: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request below a registry's base: `path` begins with `/v2/`, percent-encoded; an absolute
    `url` goes before it. `pulled` is what a pull is about, for the texts of failures."""

    method: str
    path: str = ""
    scopes: tuple[str, ...] = ()
    credentials: Credentials | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    url: URL | None = None
    body: Body | None = None
    follow: bool = True
    idle_s: float | None = None
    pulled: Reference | None = None


class Host:
    """A registry by its domain, or a mirror by its URL."""

    def __init__(
        self,
        place: str,
        *,
        transport: Transport,
        tokens: Tokens,
        settings: Callable[[], RegistrySettings],
    ) -> None:
        self.place = place
        self.transport = transport
        self._tokens = tokens
        self._settings = settings
        self._site: Site | None = None
        self._flights: SingleFlight[str, Site] = SingleFlight()

    @property
    def is_mirror(self) -> bool:
        return "://" in self.place

    async def site(self) -> Site:
        """Where it answers.

        Raises:
            Unreachable, Temporary, RegistryFailure: nowhere; of the last try.
        """
        site = self._site
        if site is None or site.expires < time.monotonic():
            site = self._site = await self._flights.run("", self._find)
        return site

    def forget(self) -> None:
        """Look for it anew with the next request."""
        self._site = None

    async def send(self, wanted: Wanted) -> ClientResponse:
        """Make a request with what the registry wants for authorisation; any answer is returned.

        Raises:
            SampanError: no connection, no token, or no credentials for what it wants.
        """
        if self.is_mirror:  # they are the Hub's
            wanted = replace(wanted, credentials=None)
        site = await self.site()
        base = str(site.base).rstrip("/")
        url = wanted.url or URL(f"{base}{wanted.path}", encoded=True)
        request = Request(
            wanted.method,
            url,
            site.security,
            dict(wanted.headers),
            wanted.body,
            follow=wanted.follow,
            idle_s=wanted.idle_s,
        )
        try:
            if not same_server(url, site.base):
                return await self.transport.open(request)  # an upload elsewhere: no credentials
            return await self._authorised(request, wanted, site)
        except Unreachable:
            self.forget()
            raise

    async def succeed(self, wanted: Wanted, *statuses: int) -> ClientResponse:
        """As `send`, for an answer with one of these statuses (200 when none is given).

        Raises:
            SampanError: `failures.failure_of` any other answer.
        """
        response = await self.send(wanted)
        if response.status in (statuses or (200,)):
            return response
        raise failure_of(await answered(response, wanted.path), wanted.pulled)

    async def _authorised(self, request: Request, wanted: Wanted, site: Site) -> ClientResponse:
        challenges, scopes = site.challenges, wanted.scopes
        sent = await self._signed(request, challenges, scopes, wanted.credentials)
        response = await self.transport.open(sent)
        if response.status != 401 or not same_server(response.url, request.url):
            return response
        fresh = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        bearer = of_scheme(fresh, "bearer")
        if bearer is not None:
            merged = tuple(dict.fromkeys([*scopes, *bearer.scopes]))
            refused = bearer.parameters.get("error") == "insufficient_scope"
            if refused and merged == scopes and "Authorization" in sent.headers:
                return response
            self._tokens.forget(Asked(request, bearer, merged, wanted.credentials))
            scopes = merged
        again = await self._signed(request, fresh, scopes, wanted.credentials)
        if again.headers == sent.headers:
            return response
        response.close()
        self._site = site._replace(challenges=fresh)
        return await self.transport.open(again)

    async def _signed(
        self,
        request: Request,
        challenges: Sequence[Challenge],
        scopes: tuple[str, ...],
        credentials: Credentials | None,
    ) -> Request:
        value = await self._authorization(request, challenges, scopes, credentials)
        if not value:
            return request
        return replace(request, headers={**request.headers, "Authorization": value})

    async def _authorization(
        self,
        request: Request,
        challenges: Sequence[Challenge],
        scopes: tuple[str, ...],
        credentials: Credentials | None,
    ) -> str:
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        bearer = of_scheme(challenges, "bearer")
        if bearer is not None:
            token = await self._tokens.get(Asked(request, bearer, scopes, credentials))
            return f"Bearer {token.value}"
        if of_scheme(challenges, "basic") is None:
            return ""
        if credentials is None or not credentials.username:
            raise RegistryFailure(f"{request.shown}: no basic auth credentials")
        return credentials.basic

    # -- Where it is ------------------------------------------------------------------------------

    async def candidates(self) -> list[tuple[URL, Security]]:
        """Where to look for it, best first."""
        if self.is_mirror:
            base = URL(self.place)
            domain = base.raw_authority
            return [(base, Security(domain, await self._may_be_insecure(domain)))]
        if self.place == DEFAULT_DOMAIN:
            return [(URL(f"https://{HUB}"), Security(HUB, insecure=False))]
        domain = self.place
        insecure = await self._may_be_insecure(domain)
        security = Security(domain, insecure)
        return [
            (URL(f"{scheme}://{domain}"), security)
            for scheme in (("https", "http") if insecure else ("https",))
        ]

    async def _find(self) -> Site:
        failure: SampanError | None = None
        for base, security in await self.candidates():
            try:
                challenges = await self._ask(base, security)
            except (Temporary, RegistryFailure) as error:
                log.debug("registry %s: %s", base, error)
                failure = error
                continue
            return Site(base, security, challenges, time.monotonic() + FOUND_LIFETIME_S)
        assert failure is not None
        raise failure

    async def _ask(self, base: URL, security: Security) -> Sequence[Challenge]:
        url = URL(f"{str(base).rstrip('/')}/v2/", encoded=True)
        request = Request("GET", url, security)
        answer = await answered(await self.transport.open(request), request.shown)
        return answer.challenges if answer.status == 401 else ()

    async def _may_be_insecure(self, domain: str) -> bool:
        """As dockerd does, by name, address, or the addresses that the name has."""
        settings = self._settings()
        if settings.names_insecure(domain):
            return True
        host, resolver = host_of(domain), self.transport.resolver
        try:
            addresses = await resolver.addresses(host)
        except (OSError, ValueError):
            return False
        insecure = settings.holds_insecure(addresses)
        resolver.pin(host, addresses if insecure else ())
        return insecure


async def patiently(work: Callable[[], Awaitable[Result]]) -> Result:
    """Do a small request, and again after a pause where that may help.

    Raises:
        SampanError: its failure; a `Temporary` one of the last try.
    """
    for pause in PAUSES_S:
        try:
            return await work()
        except Unreachable:
            raise
        except Temporary as failure:
            wait = pause if failure.retry_after is None else failure.retry_after
            if wait > RETRY_AFTER_LIMIT_S:
                raise
        await asyncio.sleep(wait)
    return await work()
