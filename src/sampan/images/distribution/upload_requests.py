"""Requests about uploads: one is opened, filled and closed with the blob's digest.

    POST uploads/                  -> 202, Location
    PATCH location  bytes          -> 202, Location          (once; again from Range after a cut)
    PUT location?digest=…          -> 201

Source: OCI distribution-spec 1.1, "Pushing Blobs"; PATCH without
Content-Range from the start of a blob is what docker sends, and what every registry takes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import quote

from aiohttp import ClientResponse
from yarl import URL

from sampan.errors import SampanError
from sampan.images.distribution.answers import answered
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, failure_of
from sampan.images.distribution.host import Host, Wanted, patiently
from sampan.images.distribution.transport import Body, Request, refuse_downgrade
from sampan.images.distribution.uploads import STORE_TIMEOUT_S, Upload
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest, parse_digest

log = logging.getLogger(__name__)


_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_ACCEPTED = frozenset((200, 201, 202, 204))


class Uploads:
    """Uploads to one repository of `host`."""

    def __init__(
        self,
        host: Host,
        path: str,
        scopes: tuple[str, ...],
        credentials: Credentials | None,
    ) -> None:
        self._host = host
        self._path = path
        self._scopes = scopes
        self._credentials = credentials
        # Begun by the registry where it did not mount; the blob's upload goes on with it.
        self._begun: dict[Digest, URL] = {}

    # -- Mounting ---------------------------------------------------------------------------------

    async def mount(self, digest: Digest, source: str) -> bool:
        """See `interface.Repository.mount`."""
        if self._begun.get(digest) is not None:
            await self._cancel(self._begun.pop(digest))
        query = f"?mount={quote(parse_digest(digest), safe=':')}&from={quote(source, safe='/')}"
        scopes = (*self._scopes, f"repository:{source}:pull")
        try:
            response = await patiently(lambda: self._send("POST", query, scopes=scopes))
        except RegistryFailure as failure:
            log.debug("mount of %s from %s: %s", digest, source, failure)
            return False
        if response.status == 202:
            self._begun[digest] = await self.location(response)
        response.close()
        return response.status == 201

    async def _cancel(self, location: URL) -> None:
        try:
            (await self._send("DELETE", url=location)).close()
        except SampanError as failure:
            log.debug("upload %s is left to the registry: %s", location, failure)

    # -- Uploading --------------------------------------------------------------------------------

    async def upload(
        self,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        progress: Callable[[int], None],
    ) -> None:
        """See `interface.Repository.upload`."""
        begun = self._begun.pop(parse_digest(descriptor.digest), None)
        await Upload(self, descriptor, open_at, progress).run(begun)

    async def begin(self) -> URL:
        """Open an upload: where to send the bytes to."""
        response = await patiently(lambda: self._send("POST"))
        if response.status != 202:
            raise failure_of(await answered(response, self._path))
        location = await self.location(response)
        response.release()
        return location

    async def written(self, location: URL) -> tuple[URL, int] | None:
        """How many bytes of an upload the registry has, and where it goes on; None: it is gone."""
        response = await patiently(lambda: self._send("GET", url=location))
        if response.status not in (200, 204):
            response.close()
            return None
        match = _RANGE.fullmatch(response.headers.get("Range", "").strip())
        # "0-0" stands for nothing, and for one byte.
        last = int(match[1]) if match else 0
        following = await self.location(response, location)
        response.release()
        return following, last + 1 if last else 0

    async def patch(
        self, location: URL, body: Body, start: int, end: int, size: int
    ) -> ClientResponse:
        """Send the bytes from `start` to `end` of a blob of `size` bytes."""
        headers = {"Content-Length": str(end - start)}
        if end - start < size:
            headers["Content-Range"] = f"{start}-{end - 1}"
        return await self._send("PATCH", url=location, headers=headers, body=body)

    async def put(self, location: URL, digest: Digest, data: bytes) -> ClientResponse:
        """Close an upload, with its bytes if they were not sent."""
        separator = "&" if location.query_string else "?"
        url = URL(f"{location}{separator}digest={quote(digest, safe='')}", encoded=True)
        return await self._send("PUT", url=url, body=lambda: data)

    async def has(self, digest: Digest) -> bool:
        """Whether the blob is there after all; a failure counts as no."""
        request = self._wanted("HEAD", f"/v2/{self._path}/blobs/{digest}")
        try:
            response = await self._host.send(request)
        except SampanError:
            return False
        response.close()
        return response.status == 200

    async def _send(
        self,
        method: str,
        query: str = "",
        *,
        url: URL | None = None,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        scopes: tuple[str, ...] = (),
    ) -> ClientResponse:
        """One request about uploads; 408, 429 and 5xx are raised, other answers returned."""
        sent = {"Content-Type": "application/octet-stream", **(headers or {})}
        if body is None:
            sent = {} if method == "GET" else {"Content-Length": "0"}
        wanted = self._wanted(
            method,
            f"/v2/{self._path}/blobs/uploads/{query}",
            url=url,
            headers=sent,
            body=body,
            scopes=scopes,
        )
        response = await self._host.send(wanted)
        if response.status in _ACCEPTED:
            return response
        if response.status >= 500 or response.status in (408, 429):
            raise failure_of(await answered(response, wanted.path))
        return response

    def _wanted(
        self,
        method: str,
        path: str,
        *,
        url: URL | None = None,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        scopes: tuple[str, ...] = (),
    ) -> Wanted:
        return Wanted(
            method,
            path,
            scopes=scopes or self._scopes,
            credentials=self._credentials,
            headers=headers or {},
            url=url,
            body=body,
            follow=False,
            idle_s=STORE_TIMEOUT_S if body is not None else None,
        )

    async def location(self, response: ClientResponse, before: URL | None = None) -> URL:
        """Where an upload goes on: the answer's Location, never from https to http."""
        site = await self._host.site()
        text = response.headers.get("Location", "")
        if not text and before is not None:
            return before
        try:
            url = response.url.join(URL(text, encoded=True)).with_user(None).with_fragment(None)
            valid = url.scheme in ("http", "https") and bool(url.host) and bool(text)
        except ValueError:
            valid = False
        if not valid:
            raise RegistryFailure(
                f"the registry opened an upload at {text[:200]!r}, which is no URL"
            )
        refuse_downgrade(Request("POST", site.base, site.security), url)
        return url
