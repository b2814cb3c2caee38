"""Uploads: a blob gets into a repository by the cheapest way that works.

    is it there? ── mounted from another repository of the registry ── sent

Mounting makes the registry link what it has already; nothing is sent then. What is sent goes on
where the registry says after a cut (`Repository.upload`), and is tried again when that did not help.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from sampan.content.store import ContentStore
from sampan.errors import NotFound
from sampan.images import progress
from sampan.images.distribution.client import Repository
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Temporary
from sampan.images.distribution.settings import RegistrySettings
from sampan.images.distribution.single_flight import SingleFlight
from sampan.images.progress import Meter, Progress
from sampan.images.retrying import count_down, delay_s
from sampan.images.slots import Slots
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest
from sampan.oci.reference import Reference
from sampan.state.blob_sources import BlobSources

ALREADY_THERE = "Layer already exists"
SENT = "Pushed"

_ATTEMPTS = 3
"""Of an upload, each of which has gone on after several cuts itself."""
_CHECKS_AT_ONCE = 8
_MOUNT_CANDIDATES = 3


@dataclass(frozen=True, slots=True)
class Target:
    """A repository to push to, as whom; `name` has neither tag nor digest."""

    repository: Repository
    name: Reference
    credentials: Credentials | None


class Uploads:
    """The uploads of one engine. `second_s` is what a second of waiting is, for tests."""

    def __init__(
        self,
        *,
        content: ContentStore,
        sources: BlobSources,
        settings: Callable[[], RegistrySettings],
    ) -> None:
        self.second_s = 1.0
        self._content = content
        self._sources = sources
        self._slots = Slots(lambda: settings().max_concurrent_uploads)
        self._checks = Slots(lambda: _CHECKS_AT_ONCE)
        self._flights: SingleFlight[tuple[object, ...], str] = SingleFlight()

    async def put(
        self, target: Target, descriptor: Descriptor, label: str, report: Progress
    ) -> str:
        """See to it that the repository has the blob; pushes that need the same one share the work.

        Returns docker's words for how it got there. `report` gets bars of the layer `label`.

        Raises:
            NotFound: this engine does not have the blob.
            SampanError: the registry's refusal, or what kept failing.
        """
        key = (target.name.repository, target.credentials, descriptor.digest)
        return await self._flights.run(key, lambda: self._put(target, descriptor, label, report))

    async def _put(
        self, target: Target, descriptor: Descriptor, label: str, report: Progress
    ) -> str:
        async with self._checks.taken(lambda: None):
            if await target.repository.has_blob(descriptor.digest):
                return ALREADY_THERE
            source = await self._mounted(target, descriptor.digest)
            if source is not None:
                return f"Mounted from {source}"
        async with self._slots.taken(lambda: report(progress.step("Waiting", label))):
            await self._send(target, descriptor, label, report)
        return SENT

    async def _mounted(self, target: Target, digest: Digest) -> str | None:
        """The path of the repository that the blob was mounted from, None if none has it."""
        domain = target.name.domain
        for source in self._sources.of(digest, domain)[:_MOUNT_CANDIDATES]:
            path = source.removeprefix(f"{domain}/")
            if path == target.name.path:
                continue
            try:
                if await target.repository.mount(digest, path):
                    return path
            except (RegistryFailure, NotFound):
                # Not to be read by this user, or gone; whether the target may be written to is
                # shown by the upload.
                pass
            self._sources.forget(digest, source)
        return None

    async def _send(
        self, target: Target, descriptor: Descriptor, label: str, report: Progress
    ) -> None:
        meter = Meter()

        def sent(count: int) -> None:
            if meter.due():
                report(progress.bar("Pushing", label, count, descriptor.size))

        failures = 0
        while True:
            try:
                await target.repository.upload(descriptor, self._opener(descriptor.digest), sent)
            except Temporary as error:
                failures += 1
                if failures == _ATTEMPTS:
                    raise
                wait_s = delay_s(failures, error)
            else:
                return
            await count_down(wait_s, label, report, second_s=self.second_s)

    def _opener(self, digest: Digest) -> Callable[[int], BinaryIO]:
        def open_at(offset: int) -> BinaryIO:
            blob = self._content.open(digest)
            os.lseek(blob.fileno(), offset, os.SEEK_SET)
            return blob

        return open_at
