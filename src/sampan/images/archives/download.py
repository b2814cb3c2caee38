"""An archive from a URL, for `import`: fetched by the engine, as it is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import ClientResponse
from yarl import URL

from sampan.errors import Forbidden, InvalidArgument, NotFound, SampanError, Unauthorized
from sampan.images.distribution.network_failures import failure_of_network
from sampan.images.distribution.transport import Request, Security, Transport
from sampan.images.progress import Meter, Progress, bar_text, status

_TEXT_LIMIT = 4096
"""The most that is told of what a server says beside its refusal, in bytes."""
_KINDS: dict[int, type[SampanError]] = {
    400: InvalidArgument,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
}


class Archive:
    """What is behind a URL; `url` as it was completed, `size` in bytes or -1."""

    def __init__(self, url: str, response: ClientResponse) -> None:
        self.url = url
        self.size = -1 if response.content_length is None else response.content_length
        self._response = response

    async def chunks(self, progress: Progress) -> AsyncIterator[bytes]:
        """The bytes as they come; `progress` gets Docker's messages on the way.

        Raises:
            Temporary: the connection was cut, or nothing came for a minute.
        """
        meter, received = Meter(), 0
        try:
            async for chunk in self._response.content.iter_any():
                received += len(chunk)
                if meter.due(final=received == self.size):
                    progress(_importing(received, self.size))
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failure_of_network(error, f'Get "{self.url}"') from error
        if self.size < 0:
            progress(_importing(received, self.size))


@asynccontextmanager
async def opened(text: str, transport: Transport) -> AsyncIterator[Archive]:
    """Ask for a URL; without a scheme, `http://` is meant.

    Raises:
        InvalidArgument: it is none of http or https.
        NotFound, Unauthorized, Forbidden, SampanError: the server refused; its words are told.
        Temporary: there is no connection.
    """
    url = _parsed(text if "://" in text else f"http://{text}")
    security = Security(host=url.authority.rpartition("@")[2], insecure=False)
    response = await transport.open(Request("GET", url, security))
    async with response:
        if response.status >= 400:
            raise await _refusal(str(url), response)
        yield Archive(str(url), response)


def _parsed(text: str) -> URL:
    try:
        url = URL(text, encoded=True)
        usable = url.scheme in ("http", "https") and bool(url.host) and bool(url.port)
    except ValueError as error:
        raise InvalidArgument(f'parse "{text}": {error}') from error
    if url.scheme not in ("http", "https"):
        raise InvalidArgument(f'Get "{text}": unsupported protocol scheme "{url.scheme}"')
    if not usable:
        raise InvalidArgument(f'Get "{text}": no Host in request URL')
    return url


async def _refusal(url: str, response: ClientResponse) -> SampanError:
    try:
        body = await response.content.read(_TEXT_LIMIT)
    except (aiohttp.ClientError, TimeoutError, OSError):
        body = b""
    said = body.decode("utf-8", "replace").strip()
    text = f"failed to GET {url} with status {response.status} {response.reason}"
    kind = _KINDS.get(response.status, SampanError)
    return kind(f"{text}: {said}" if said else text)


def _importing(current: int, total: int) -> dict[str, object]:
    message = status("Importing")
    message["progressDetail"] = {"current": current, "total": total}
    message["progress"] = bar_text(current, total)
    return message
