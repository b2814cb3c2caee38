"""One HTTP exchange with a registry, or with where it sends us: proxies, TLS, redirects, timeouts.

Credentials stay with the server that they were meant for: a redirect to another host, port or scheme
is followed without them. From https nobody is sent to http, unless the registry may be insecure.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import ClientResponse, ClientTimeout, TCPConnector
from yarl import URL

import sampan
from sampan.images.distribution.failures import RegistryFailure
from sampan.images.distribution.network_failures import failure_of_network
from sampan.images.distribution.proxies import proxy_for
from sampan.images.distribution.resolving import Resolver
from sampan.images.distribution.settings import RegistrySettings
from sampan.images.distribution.trust import folder_of, make_context, state_of

REDIRECTS_LIMIT = 10
CONNECT_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 60.0
# A small answer may come slowly, but not for ever.
SMALL_TIMEOUT_S = 120.0
HEADER_LIMIT = 64 << 10
CONTEXTS_LIMIT = 64
# Twice this is what a connection holds at most while nobody reads it.
READ_BUFFER_BYTES = 512 << 10

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_CREDENTIALS = "Authorization"

Body = Callable[[], bytes | AsyncIterator[bytes]]
"""Gives the body of a request, anew for each time that it is sent."""


@dataclass(frozen=True, slots=True)
class Security:
    """How a registry is spoken to: `host` is `host[:port]` as its certificates' folder is called."""

    host: str
    insecure: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    `follow` says whether redirects are gone after, `idle_s` how long nothing may come; a minute.
    """

    method: str
    url: URL
    security: Security
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    follow: bool = True
    idle_s: float | None = None

    @property
    def shown(self) -> str:
        """`Get "url"`: what Go puts in front of an error."""
        return self.shown_at(self.url)

    def shown_at(self, url: URL) -> str:
        """The same for where a redirect led. What is signed or an upload's state is not told."""
        if self.body is not None or not same_server(url, self.url):
            url = url.with_query(None)
        return f'{self.method.capitalize()} "{url}"'


class Transport:
    """Connections to all registries, made at first use and kept for some seconds."""

    def __init__(self, settings: Callable[[], RegistrySettings]) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._resolver: Resolver | None = None
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}

    @property
    def resolver(self) -> Resolver:
        """What finds hosts; it belongs to the loop that it is first used on."""
        if self._resolver is None:
            self._resolver = Resolver()
        return self._resolver

    async def close(self) -> None:
        """End all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def forget_certificates(self) -> None:
        """Read certificates anew, for the next connection."""
        self._contexts.clear()

    async def open(self, request: Request) -> ClientResponse:
        """Send a request, follow redirects; the answer's body is still to be read.

        Whoever gets the answer releases or closes it.

        Raises:
            Unreachable, Temporary: no connection, or it was cut or stalled.
            RegistryFailure: the redirects are a circle, or lead where they must not.
        """
        url, headers = request.url, dict(request.headers)
        for _ in range(REDIRECTS_LIMIT + 1):
            response = await self._exchange(request, url, headers)
            location = response.headers.get("Location", "")
            if not request.follow or response.status not in _REDIRECTS or not location:
                return response
            response.release()
            target = _target(request, url, location)
            if not (same_server(request.url, target) or _is_upgrade(request.url, target)):
                headers.pop(_CREDENTIALS, None)
            url = target
        raise RegistryFailure(f"{request.shown}: stopped after {REDIRECTS_LIMIT} redirects")

    async def _exchange(
        self, request: Request, url: URL, headers: Mapping[str, str]
    ) -> ClientResponse:
        session = self._open_session()
        scheme, host, port = url.scheme, url.host or "", url.port or 0
        context = await self._context(request.security, url) if scheme == "https" else None
        head_limit = None if request.body is not None else SMALL_TIMEOUT_S
        used: list[asyncio.Transport] = []
        _used.set(used)
        try:
            async with asyncio.timeout(head_limit):
                return await session.request(
                    request.method,
                    url,
                    headers=headers,
                    data=request.body() if request.body else None,
                    allow_redirects=False,
                    proxy=proxy_for(scheme, host, port, os.environ),
                    ssl=context or True,
                    timeout=ClientTimeout(
                        total=None,
                        connect=2 * CONNECT_TIMEOUT_S,
                        sock_connect=CONNECT_TIMEOUT_S,
                        sock_read=request.idle_s or IDLE_TIMEOUT_S,
                    ),
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            _cut(used)
            raise failure_of_network(error, request.shown_at(url)) from error
        except asyncio.CancelledError:
            _cut(used)
            raise

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=0, keepalive_timeout=30.0, resolver=self.resolver),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
                # Signed locations of storage have several KiB.
                max_line_size=HEADER_LIMIT,
                max_field_size=HEADER_LIMIT,
                headers={
                    "User-Agent": f"sampan/{sampan.__version__}",
                    "Accept-Encoding": "identity",
                },
                skip_auto_headers=("Content-Type", "Accept"),
            )
        return self._session

    async def _context(self, security: Security, url: URL) -> ssl.SSLContext:
        """The registry's own context for itself and, where another host has no folder, for that.

        A private authority often signs a registry, its storage and its token server.
        """
        directories = self._settings().certs_directories
        own = folder_of(_domain(url), directories)
        folder = own or folder_of(security.host, directories)
        # Only who the certificate is for is shown it.
        client = own is not None or _domain(url) == security.host
        key = (folder, state_of(folder), security.insecure, client)
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) >= CONTEXTS_LIMIT:
                self._contexts.clear()
            context = await asyncio.to_thread(
                make_context, folder, insecure=security.insecure, client=client
            )
            context = self._contexts.setdefault(key, context)
        return context


_used: ContextVar[list[asyncio.Transport]] = ContextVar("_used")
"""What the request under way is sent over."""


class _Connector(TCPConnector):
    """Tells a request what it is sent over."""

    async def connect(self, *given: Any, **named: Any) -> Any:
        connection = await super().connect(*given, **named)
        if connection.transport is not None:
            _used.get([]).append(connection.transport)
        return connection


def _cut(used: list[asyncio.Transport]) -> None:
    """End the connections of a request that failed, and with them what was not sent yet: a transport
    that is only closed waits for a registry that takes nothing, for ever."""
    for transport in used:
        transport.abort()


async def read_limited(response: ClientResponse, limit: int, shown: str) -> bytes:
    """The whole body of an answer, closing it; `shown` is for the failure's text.

    Raises:
        RegistryFailure: it is longer than `limit` bytes; no more than that is kept.
        Temporary: it was cut.
    """
    parts: list[bytes] = []
    left = limit
    try:
        async with asyncio.timeout(SMALL_TIMEOUT_S), response:
            async for chunk in response.content.iter_any():
                left -= len(chunk)
                if left < 0:
                    response.close()
                    raise RegistryFailure(f"{shown}: the answer is longer than {limit} bytes")
                parts.append(chunk)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise failure_of_network(error, shown) from error
    return b"".join(parts)


def _target(request: Request, url: URL, location: str) -> URL:
    """Where a redirect leads, its escapes untouched: they may be signed."""
    try:
        target = url.join(URL(location, encoded=True)).with_user(None).with_fragment(None)
        valid = target.scheme in ("http", "https") and bool(target.host) and bool(target.port)
    except ValueError:
        valid = False
    if not valid:
        raise RegistryFailure(f"{request.shown}: redirected to {location[:200]!r}, which is no URL")
    refuse_downgrade(request, target)
    return target


def refuse_downgrade(request: Request, target: URL) -> None:
    """Refuse to go from https to http.

    Raises:
        RegistryFailure: with the next step.
    """
    if request.url.scheme == "https" and target.scheme != "https" and not request.security.insecure:
        raise RegistryFailure(
            f"{request.shown}: the registry sends from https to {_without_query(target)}",
            hint=f"if that is meant, add {request.security.host} to insecure-registries",
        )


def _without_query(url: URL) -> str:
    return str(url.with_query(None).with_fragment(None))


def same_server(first: URL, second: URL) -> bool:
    """Whether both are the same scheme, host and port."""
    return first.origin() == second.origin()


def _is_upgrade(first: URL, second: URL) -> bool:
    """Whether the same host asks to be spoken to by TLS."""
    return first.host == second.host and (first.scheme, second.scheme) == ("http", "https")


def _domain(url: URL) -> str:
    """`host[:port]` as it stands in a reference."""
    return url.raw_authority.rpartition("@")[2]
