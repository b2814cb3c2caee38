"""HTTP in and out: from a request to its handler, from a failure to its answer.

server = ApiServer(routes, product="Sampan/1.0 (linux)")
protocol_factory = server.protocol_factory()          # for loop.create_server, per listener
await server.close()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.web_request import BaseRequest

from sampan.api import answers, versions
from sampan.api.call import Call
from sampan.api.connection import ApiProtocolFactory, Connection
from sampan.api.errors import status_of, text_of
from sampan.api.router import Route, Router
from sampan.engine import leases, requester
from sampan.errors import NotFound, SampanError

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

log = logging.getLogger("sampan.api")

# A query holds filters, a header a registry's credentials: more than aiohttp's 8 KiB, far from much.
HEAD_FIELD_LIMIT_BYTES = 256 << 10

# What is made by the request belongs to this lease; docker's CLI sends it by `HttpHeaders` of its
# config.json.
LEASE_HEADER = "X-Sampan-Lease"

# How long requests under way may take when the daemon ends.
CLOSE_TIMEOUT_S = 2.0


class ApiServer:
    """The API: a route table behind any number of listeners."""

    def __init__(self, routes: Iterable[Route[Handler]], *, product: str) -> None:
        self._router = Router(routes)
        self._factory: ApiProtocolFactory | None = None
        self._headers = {
            "Api-Version": versions.spelled(versions.NEWEST),
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": product,
        }

    def protocol_factory(self) -> Callable[[], Connection]:
        """What `loop.create_server` calls for each connection; within a running loop."""
        if self._factory is None:
            self._factory = ApiProtocolFactory(
                self.handle,
                access_log=None,
                auto_decompress=False,
                max_line_size=HEAD_FIELD_LIMIT_BYTES,
                max_field_size=HEAD_FIELD_LIMIT_BYTES,
            )
        return self._factory  # type: ignore[return-value]  # aiohttp types the base class

    async def close(self, timeout_s: float | None = CLOSE_TIMEOUT_S) -> None:
        """End all connections: streams at once, other requests when they are answered, or at the
        time-out (None: there is none).

        Sessions that were handed over go on.
        """
        if self._factory is not None:
            for connection in self._factory.connections:
                assert isinstance(connection, Connection)
                connection.end_stream()
            self._factory.pre_shutdown()
            await self._factory.shutdown(timeout_s)

    async def handle(self, request: BaseRequest) -> web.StreamResponse:
        """Answer one request; every failure is an answer too."""
        started = time.monotonic()
        connection = request.protocol
        assert isinstance(connection, Connection)
        requester.current.set(connection.requester)
        leases.current.set(request.headers.get(LEASE_HEADER, ""))
        call = Call(request, self._headers)
        try:
            response = await self._dispatch(call)
        except SampanError as failure:
            response = self._refusal(status_of(failure), text_of(failure), call)
        except Exception as error:
            if isinstance(error, ConnectionError) and (call.begun or request.transport is None):
                log.debug("%s %s: %s", request.method, request.raw_path, error)
                return answers.NothingMore(500)
            log.exception("%s %s", request.method, request.raw_path)
            response = self._refusal(500, str(error) or type(error).__name__, call)
        if isinstance(response, answers.NothingMore):
            return response  # the socket may be another's: not one byte more is read from it
        connection.request_answered()
        log.debug(
            "%s %s %d %.1f ms",
            request.method,
            request.raw_path,
            response.status,
            (time.monotonic() - started) * 1e3,
        )
        if not response.prepared:
            response.headers.update(self._headers)
        return response

    async def _dispatch(self, call: Call) -> web.StreamResponse:
        path, _, call.query_text = _target(call.request.raw_path)
        call.version, path = versions.split_version(path)
        found = self._router.find(call.request.method, path)
        if found is None:
            raise NotFound("page not found")
        route, call.parameters = found
        return await route.target(call)

    def _refusal(self, status: int, message: str, call: Call) -> web.StreamResponse:
        if call.begun:
            # Behind a head that said 200: the connection ends, the body does not.
            log.warning("%s broken off: %s", call.request.raw_path, message)
            return answers.NothingMore(status)
        if status == 304:
            return answers.nothing(304)
        if call.version is not None and call.version < versions.FIRST_JSON_ERRORS:
            response = answers.text(f"{message}\n")
            response.set_status(status)
            return response
        return answers.document({"message": message}, status)


def _target(raw: str) -> tuple[str, str, str]:
    """Path, `?` and query of a request target; a proxy may send an absolute one (RFC 9112, 3.2)."""
    if not raw.startswith("/"):
        parts = urlsplit(raw)
        raw = f"{parts.path or '/'}?{parts.query}"
    return raw.partition("?")
