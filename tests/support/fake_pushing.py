"""A registry's push side in memory: what the engine's client offers, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, BinaryIO

from sampan.errors import NotFound
from sampan.images.distribution.failures import RegistryFailure
from sampan.images.distribution.settings import RegistrySettings
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest, digest_of
from sampan.oci.reference import Reference


class FakeRegistries:
    """Blobs and manifests by repository path; `calls` is what was asked, in order.

    `failures` are raised by the next uploads, one each; `unmountable` are paths that nothing is
    mounted from, `mount_failure` is raised instead; manifests of `refused_types` are refused;
    uploads wait while `gate` is closed.
    """

    def __init__(self) -> None:
        self.settings = RegistrySettings()
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.credentials: list[Any] = []
        self.failures: list[Exception] = []
        self.unmountable: set[str] = set()
        self.refused_types: set[str] = set()
        self.mount_failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = 0
        self.most_at_once = 0

    def repository(
        self, reference: Reference, credentials: Any, *, push: bool = False
    ) -> FakeRepository:
        assert push
        self.credentials.append(credentials)
        return FakeRepository(self, reference)

    def asked(self, what: str) -> list[str]:
        return [argument for name, _, argument in self.calls if name == what]

    async def close(self) -> None:
        pass


class FakeRepository:
    """See `sampan.images.distribution.interface.Repository`."""

    def __init__(self, owner: FakeRegistries, reference: Reference) -> None:
        self.name = reference.repository
        self._owner, self._path = owner, reference.path
        self._blobs = owner.blobs.setdefault(reference.path, {})

    def _call(self, what: str, argument: str) -> None:
        self._owner.calls.append((what, self._path, argument))

    async def has_blob(self, digest: Digest) -> bool:
        self._call("has", digest)
        await asyncio.sleep(0)
        return digest in self._blobs

    async def mount(self, digest: Digest, source_repository_path: str) -> bool:
        self._call("mount", source_repository_path)
        await asyncio.sleep(0)
        if self._owner.mount_failure is not None:
            raise self._owner.mount_failure
        source = self._owner.blobs.get(source_repository_path, {})
        if source_repository_path in self._owner.unmountable or digest not in source:
            return False
        self._blobs[digest] = source[digest]
        return True

    async def upload(
        self,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        progress: Callable[[int], None],
    ) -> None:
        self._call("upload", descriptor.digest)
        self._owner.at_once += 1
        self._owner.most_at_once = max(self._owner.most_at_once, self._owner.at_once)
        try:
            await self._owner.gate.wait()
            await asyncio.sleep(0)
            if self._owner.failures:
                raise self._owner.failures.pop(0)
            half = descriptor.size // 2
            with open_at(0) as first, open_at(half) as rest:
                data = first.read(half)
                progress(half)
                data += rest.read()
            assert digest_of(data) == descriptor.digest
            progress(descriptor.size)
            self._blobs[descriptor.digest] = data
        finally:
            self._owner.at_once -= 1

    async def resolve(self, wanted: str) -> Descriptor:
        self._call("resolve", wanted)
        await asyncio.sleep(0)
        if wanted not in self._owner.manifests.get(self._path, {}):
            raise NotFound(f"manifest for {self.name}:{wanted} not found")
        kind, data = self._owner.manifests[self._path][wanted]
        return Descriptor(media_type=kind, digest=digest_of(data), size=len(data))

    async def put_manifest(self, wanted: str, media_type: str, data: bytes) -> Digest:
        self._call("manifest", wanted)
        if media_type in self._owner.refused_types:
            raise RegistryFailure(f"manifest invalid: no {media_type.partition('image.')[2]}")
        self._owner.manifests.setdefault(self._path, {})[wanted] = (media_type, data)
        return digest_of(data)
