"""A registry in memory, behind the interface of the registry client: each byte it gives is counted.

What it does wrong is said per blob: `cut_after`, `stall`, `failures`, `knows_ranges`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sampan.errors import NotFound, SampanError
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import Temporary
from sampan.images.distribution.interface import FetchedManifest
from sampan.images.distribution.settings import RegistrySettings
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest, digest_of
from sampan.oci.reference import Reference
from support.registry_images import Blob, Made

CHUNK = 16 << 10


class FakeStream:
    """The bytes of one answer."""

    def __init__(self, owner: FakeRegistries, digest: str, data: bytes, offset: int) -> None:
        self.offset = offset
        self.total = len(data)
        self._owner = owner
        self._digest = digest
        self._data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        owner, position = self._owner, self.offset
        while position < len(self._data):
            await asyncio.sleep(0)
            if (at := owner.stall.get(self._digest)) is not None and position >= at:
                owner.stalled.set()
                await owner.released.wait()
            cuts = owner.cut_after.get(self._digest, [])
            if cuts and position - self.offset >= cuts[0]:
                cuts.pop(0)
                raise Temporary("unexpected EOF")
            piece = self._data[position : position + CHUNK]
            position += len(piece)
            owner.served[self._digest] += len(piece)
            yield piece


class FakeRegistries:
    """All repositories share one store of manifests and blobs."""

    def __init__(self) -> None:
        self.settings = RegistrySettings()
        self.tags: dict[str, dict[str, str]] = {}
        self.manifests: dict[str, Blob] = {}
        self.blobs: dict[str, bytes] = {}
        self.served: Counter[str] = Counter()
        self.asked: list[str] = []
        self.cut_after: dict[str, list[int]] = {}
        self.failures: dict[str, list[SampanError]] = {}
        self.stall: dict[str, int] = {}
        self.stalled = asyncio.Event()
        self.released = asyncio.Event()
        self.knows_ranges = True
        self.open_now = 0
        self.open_most = 0

    def put(self, repository: str, tag: str, made: Made) -> Made:
        for blob in (*made.layers, made.config):
            self.blobs[blob.digest] = blob.data
        self.put_manifest(repository, tag, made.manifest)
        return made

    def put_manifest(self, repository: str, tag: str, blob: Blob) -> None:
        self.manifests[blob.digest] = blob
        self.tags.setdefault(repository, {})
        if tag:
            self.tags[repository][tag] = blob.digest

    def bytes_of(self, made: Made) -> int:
        """What was served of an image's layers."""
        return sum(self.served[blob.digest] for blob in made.layers)

    def repository(
        self, reference: Reference, credentials: Credentials | None, *, push: bool = False
    ) -> FakeRepository:
        return FakeRepository(self, reference.path, credentials)

    async def close(self) -> None:
        """Nothing is open."""


class FakeRepository:
    def __init__(self, owner: FakeRegistries, name: str, credentials: Credentials | None) -> None:
        self.name = name
        self._owner = owner
        self._credentials = credentials

    async def manifest(self, wanted: str) -> FetchedManifest:
        self._owner.asked.append(f"GET {wanted}")
        blob = self._find(wanted)
        return FetchedManifest(blob.media_type, Digest(blob.digest), blob.data)

    async def resolve(self, wanted: str) -> Descriptor:
        self._owner.asked.append(f"HEAD {wanted}")
        blob = self._find(wanted)
        return Descriptor(
            media_type=blob.media_type, digest=digest_of(blob.data), size=len(blob.data)
        )

    def _find(self, wanted: str) -> Blob:
        tags = self._owner.tags.get(self.name, {})
        digest = wanted if ":" in wanted else tags.get(wanted, "")
        blob = self._owner.manifests.get(digest)
        if blob is None:
            raise NotFound(f"manifest for {self.name}:{wanted} not found: manifest unknown")
        return blob

    @asynccontextmanager
    async def blob(self, descriptor: Descriptor, *, offset: int = 0) -> AsyncIterator[FakeStream]:
        owner, digest = self._owner, descriptor.digest
        owner.asked.append(f"BLOB {digest} {offset}")
        if owner.failures.get(digest):
            raise owner.failures[digest].pop(0)
        owner.open_now += 1
        owner.open_most = max(owner.open_most, owner.open_now)
        try:
            start = offset if owner.knows_ranges else 0
            yield FakeStream(owner, digest, owner.blobs[digest], start)
        finally:
            owner.open_now -= 1

    async def tags(self) -> list[str]:
        if self.name not in self._owner.tags:
            raise NotFound(f"repository {self.name} not found: name unknown")
        return list(self._owner.tags[self.name])
