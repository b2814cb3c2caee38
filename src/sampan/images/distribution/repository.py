"""One repository of one registry: manifests, tags and blobs. For pulls of docker.io its mirrors are
asked before the Hub.

Source: OCI distribution-spec 1.1, "Endpoints".
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import ClientResponse
from yarl import URL

from sampan.errors import NotFound, SampanError
from sampan.images.distribution import manifests
from sampan.images.distribution.answers import answered
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Temporary, failure_of
from sampan.images.distribution.host import Host, Wanted, patiently
from sampan.images.distribution.interface import FetchedManifest
from sampan.images.distribution.network_failures import failure_of_network
from sampan.images.distribution.transport import read_limited, same_server
from sampan.images.distribution.upload_requests import Uploads
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest, digest_of, parse_digest
from sampan.oci.reference import Reference, is_tag

log = logging.getLogger(__name__)

PAGE_LIMIT = 4 << 20
TAGS_LIMIT = 200_000
TAGS_A_PAGE = 1000
PAGES_LIMIT = 2000
"""Registries choose smaller pages than asked for; one that always names another page is left."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_NEXT = re.compile(r'<([^>]*)>\s*;(?:[^,]*;)?\s*rel="?next"?', re.IGNORECASE)
# A digest of what is small is computed where we are; hashing 4 MiB takes longer than the loop may wait.
_HASH_INLINE = 256 << 10

Result = TypeVar("Result")


class BlobBytes:
    """The body of a blob's answer; see `interface.BlobStream`."""

    def __init__(self, response: ClientResponse, *, offset: int, total: int) -> None:
        self.offset = offset
        self.total = total
        self._response = response

    async def chunks(self) -> AsyncIterator[bytes]:
        left = self.total - self.offset
        shown = f'Get "{self._response.url.with_query(None)}"'
        try:
            async for chunk in self._response.content.iter_any():
                left -= len(chunk)
                if left < 0:
                    raise RegistryFailure(
                        f"{shown}: the registry sent more than the {self.total} bytes of the blob"
                    )
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failure_of_network(error, shown) from error
        if left:
            raise Temporary(f"{shown}: unexpected EOF: {left} of {self.total} bytes are missing")


class RegistryRepository:
    """See `interface.Repository`. `hosts` are asked in order, the last one is the registry itself.

    `plain`: failures are told in the registry's words alone, without those of a pull.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        reference: Reference,
        credentials: Credentials | None,
        *,
        push: bool,
        plain: bool = False,
    ) -> None:
        self.name = reference.repository
        self._hosts = hosts
        self._reference = reference
        self._credentials = credentials
        # What failures are told to be about; nothing, for those that are not of a pull.
        self._pulled = None if plain else reference
        self._path = reference.path
        actions = "pull,push" if push else "pull"
        self._scopes = (f"repository:{reference.path}:{actions}",)
        self._uploads = Uploads(hosts[-1], reference.path, self._scopes, credentials)

    # -- Manifests --------------------------------------------------------------------------------

    async def manifest(self, wanted: str) -> FetchedManifest:
        return await self._asked(lambda host: self._manifest(host, wanted))

    async def resolve(self, wanted: str) -> Descriptor:
        return await self._asked(lambda host: self._resolve(host, wanted))

    async def put_manifest(self, wanted: str, media_type: str, data: bytes) -> Digest:
        digest = await _digest_of(data)
        request = self._wanted(
            "PUT",
            f"manifests/{_checked(wanted)}",
            headers={"Content-Type": media_type},
            body=lambda: data,
        )
        response = await patiently(lambda: self._hosts[-1].succeed(request, 200, 201, 202))
        response.release()
        named = _named_digest(response, digest)
        if named != digest:
            raise RegistryFailure(
                f"the registry stored the manifest as {named[:80]}, not as {digest}"
            )
        return digest

    async def _manifest(self, host: Host, wanted: str) -> FetchedManifest:
        request = self._wanted(
            "GET",
            f"manifests/{_checked(wanted)}",
            headers={"Accept": manifests.ACCEPT},
            pulled=self._pulled and self._about(wanted),
        )
        response = await host.succeed(request)
        shown = f"manifest {self._about(wanted).familiar}"
        data = await read_limited(response, manifests.SIZE_LIMIT, shown)
        content_type = response.headers.get("Content-Type", "")
        manifests.refuse_schema_1(content_type, data, str(self._about(wanted)))
        digest = await _digest_of(data)
        named = wanted if ":" in wanted else _named_digest(response, digest)
        if named != digest:
            raise RegistryFailure(
                f"manifest verification failed for digest {named[:80]}: "
                f"the registry sent another manifest, {digest}"
            )
        media_type = manifests.media_type_of(content_type, data, self._about(wanted).familiar)
        return FetchedManifest(media_type, digest, data)

    async def _resolve(self, host: Host, wanted: str) -> Descriptor:
        request = self._wanted(
            "HEAD", f"manifests/{_checked(wanted)}", headers={"Accept": manifests.ACCEPT}
        )
        response = await host.send(request)
        headers = response.headers
        response.release()
        described = manifests.descriptor_of(headers) if response.status == 200 else None
        if described is None or (":" in wanted and described.digest != wanted):
            return (await self._manifest(host, wanted)).descriptor
        return described

    # -- Tags -------------------------------------------------------------------------------------

    async def tags(self) -> list[str]:
        return await self._asked(self._tags)

    async def _tags(self, host: Host) -> list[str]:
        found: dict[str, None] = {}
        request = self._wanted("GET", f"tags/list?n={TAGS_A_PAGE}", pulled=self._pulled)
        seen: set[URL | None] = {None}
        while True:
            response = await host.succeed(request)
            shown = f"tags of {self._reference.familiar_name}"
            page = _tags_of(await read_limited(response, PAGE_LIMIT, shown), shown)
            found.update(dict.fromkeys(page))
            following = _next_page(response)
            if following in seen or len(found) > TAGS_LIMIT or len(seen) > PAGES_LIMIT:
                return list(found)
            seen.add(following)
            request = self._wanted("GET", "", url=following, pulled=self._pulled)

    # -- Blobs ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def blob(self, descriptor: Descriptor, *, offset: int = 0) -> AsyncIterator[BlobBytes]:
        parse_digest(descriptor.digest)
        stream, response = await self._asked(
            lambda host: self._open_blob(host, descriptor, offset), patient=False
        )
        async with response:
            yield stream

    async def _open_blob(
        self, host: Host, descriptor: Descriptor, offset: int
    ) -> tuple[BlobBytes, ClientResponse]:
        request = self._wanted(
            "GET",
            f"blobs/{descriptor.digest}",
            headers={"Range": f"bytes={offset}-"} if offset else {},
        )
        response = await host.send(request)
        if response.status == 416 and offset:
            response.close()
            return await self._open_blob(host, descriptor, 0)
        if response.status not in (200, 206):
            raise _blob_failure(
                failure_of(await answered(response, request.path), self._pulled), descriptor
            )
        given = offset if response.status == 206 else 0
        try:
            _check_length(response, descriptor, given)
        except RegistryFailure:
            response.close()
            raise
        return BlobBytes(response, offset=given, total=descriptor.size), response

    async def has_blob(self, digest: Digest) -> bool:
        async def ask() -> bool:
            # A redirect says that there is one; where it leads is of no interest.
            request = self._wanted("HEAD", f"blobs/{parse_digest(digest)}", follow=False)
            response = await self._hosts[-1].send(request)
            if response.status == 200 or 301 <= response.status <= 308:
                response.release()
                return True
            if response.status == 404:
                response.release()
                return False
            raise failure_of(await answered(response, request.path))

        return await patiently(ask)

    async def mount(self, digest: Digest, source_repository_path: str) -> bool:
        return await self._uploads.mount(digest, source_repository_path)

    async def upload(
        self,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        progress: Callable[[int], None],
    ) -> None:
        await self._uploads.upload(descriptor, open_at, progress)

    # -- Inside -----------------------------------------------------------------------------------

    async def _asked(
        self, work: Callable[[Host], Awaitable[Result]], *, patient: bool = True
    ) -> Result:
        """Ask each host until one answers; a mirror is not asked twice."""
        *mirrors, registry = self._hosts
        for mirror in mirrors:
            try:
                return await work(mirror)
            except SampanError as error:
                log.info("mirror %s: %s; asking the next", mirror.place, error)
        if not patient:
            return await work(registry)
        return await patiently(lambda: work(registry))

    def _wanted(self, method: str, path: str, **more: Any) -> Wanted:
        return Wanted(
            method,
            f"/v2/{self._path}/{path}",
            scopes=self._scopes,
            credentials=self._credentials,
            **more,
        )

    def _about(self, wanted: str) -> Reference:
        domain, path = self._reference.domain, self._reference.path
        if ":" in wanted:
            return Reference(domain, path, None, Digest(wanted))
        return Reference(domain, path, wanted)


def _checked(wanted: str) -> str:
    """A tag or digest, as part of a path."""
    if not is_tag(wanted):
        parse_digest(wanted)
    return quote(wanted, safe=":")


async def _digest_of(data: bytes) -> Digest:
    return digest_of(data) if len(data) < _HASH_INLINE else await asyncio.to_thread(digest_of, data)


def _named_digest(response: ClientResponse, digest: Digest) -> str:
    """What the registry calls a manifest; one of another algorithm tells nothing."""
    named = response.headers.get("Docker-Content-Digest", digest)
    return named if named.startswith("sha256:") else digest


def _tags_of(data: bytes, shown: str) -> list[str]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryFailure(f"{shown}: {error}") from error
    tags = document.get("tags") if isinstance(document, dict) else None
    if not isinstance(tags, list):
        return []  # null where there are none
    return [tag for tag in tags if isinstance(tag, str) and is_tag(tag)]


def _next_page(response: ClientResponse) -> URL | None:
    """Where a Link header says that the list goes on; only on the same server."""
    match = _NEXT.search(response.headers.get("Link", ""))
    if match is None:
        return None
    try:
        url = response.url.join(URL(match[1], encoded=True)).with_user(None)
        return url if same_server(url, response.url) else None
    except ValueError:
        return None


def _check_length(response: ClientResponse, descriptor: Descriptor, offset: int) -> None:
    """Refuse an answer that is not the rest of the blob from `offset` on."""
    left = descriptor.size - offset
    length = response.content_length
    if length is not None and length != left:
        raise RegistryFailure(
            f"blob {descriptor.digest}: the registry has {length + offset} bytes, "
            f"the manifest says {descriptor.size}"
        )
    if response.status != 206:
        return
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != offset or match[3] not in ("*", str(descriptor.size)):
        raise RegistryFailure(
            f"blob {descriptor.digest}: the registry answered with another part of it than asked for"
        )


def _blob_failure(failure: SampanError, descriptor: Descriptor) -> SampanError:
    """A failure that names the blob, where the registry does not have it."""
    if isinstance(failure, NotFound):
        return NotFound(f"blob {descriptor.digest}: {failure.message}")
    return failure
