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
from sampan.images.progress import Meter, Progress
from sampan.images.retrying import count_down, delay_s
from sampan.images.shared import Job, Jobs
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
        self.checks = Slots(lambda: _CHECKS_AT_ONCE)
        self.slots = Slots(lambda: settings().max_concurrent_uploads)
        self.content = content
        self.sources = sources
        self._jobs: Jobs[_Upload] = Jobs()

    async def put(
        self, target: Target, descriptor: Descriptor, label: str, report: Progress
    ) -> str:
        """See to it that the repository has the blob; pushes that need the same one share the work.

        Returns docker's words for how it got there. `report` gets bars of the layer `label`.

        Raises:
            NotFound: this engine does not have the blob.
            SampanError: the registry's refusal, or what kept failing.
        """
        key = f"{target.name.repository}@{descriptor.digest} {hash(target.credentials)}"
        async with self._jobs.join(
            key, lambda: _Upload(self, target, descriptor, label), report
        ) as upload:
            await upload.wait()
            return upload.outcome


class _Upload(Job):
    """One blob on its way into one repository; `outcome` tells how it got there."""

    def __init__(
        self, uploads: Uploads, target: Target, descriptor: Descriptor, label: str
    ) -> None:
        super().__init__()
        self.outcome = ""
        self._uploads = uploads
        self._target = target
        self._descriptor = descriptor
        self._label = label

    async def run(self) -> None:
        self.outcome = await self._found() or await self._sent()

    async def _found(self) -> str:
        """How the registry has the blob without its being sent; "" if it does not."""
        digest = self._descriptor.digest
        async with self._uploads.checks.taken(lambda: None):
            if await self._target.repository.has_blob(digest):
                return ALREADY_THERE
            source = await self._mounted(digest)
            return f"Mounted from {source}" if source is not None else ""

    async def _mounted(self, digest: Digest) -> str | None:
        """The path of the repository that the blob was mounted from, None if none has it."""
        name, sources = self._target.name, self._uploads.sources
        for source in sources.of(digest, name.domain)[:_MOUNT_CANDIDATES]:
            path = source.removeprefix(f"{name.domain}/")
            if path == name.path:
                continue
            try:
                if await self._target.repository.mount(digest, path):
                    return path
            except (RegistryFailure, NotFound):
                # Not to be read by this user, or gone; whether the target may be written to is
                # shown by the upload.
                pass
            sources.forget(digest, source)
        return None

    async def _sent(self) -> str:
        waiting = progress.step("Waiting", self._label)
        async with self._uploads.slots.taken(lambda: self.tell(waiting)):
            failures = 0
            while (error := await self._attempt()) is not None:
                failures += 1
                if failures == _ATTEMPTS:
                    raise error
                wait_s = delay_s(failures, error)
                await count_down(wait_s, self._label, self.tell, second_s=self._uploads.second_s)
        return SENT

    async def _attempt(self) -> Temporary | None:
        """Send the blob; what may not be so the next time is returned."""
        size, meter = self._descriptor.size, Meter()

        def sent(count: int) -> None:
            if meter.due():
                self.tell(progress.bar("Pushing", self._label, count, size))

        try:
            await self._target.repository.upload(self._descriptor, self._open_at, sent)
        except Temporary as error:
            return error
        return None

    def _open_at(self, offset: int) -> BinaryIO:
        blob = self._uploads.content.open(self._descriptor.digest)
        os.lseek(blob.fileno(), offset, os.SEEK_SET)
        return blob
