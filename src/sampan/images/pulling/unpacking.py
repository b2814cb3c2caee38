"""Unpacking layers of a pull: each once, several at a time, while they and later ones arrive.

A layer's tree does not depend on those below it, so layers are laid out side by side in threads.
A layer is committed only after its blob's digest and its diff ID have been verified.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sampan.content.compression import decompressed
from sampan.errors import InvalidArgument, SampanError, Unavailable
from sampan.images import progress
from sampan.images.disk import storing
from sampan.images.distribution.interface import Repository
from sampan.images.distribution.settings import RegistrySettings
from sampan.images.pipe import StreamAborted
from sampan.images.progress import Meter, Progress
from sampan.images.pulling.growing import Reader
from sampan.images.pulling.transfers import Downloads, Transfer, finished
from sampan.images.shared import Job, Jobs
from sampan.images.slots import Slots
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import ChainID, DiffID, chain_id
from sampan.oci.tar import CHUNK, Read
from sampan.snapshots.layers import Layer
from sampan.snapshots.overlay import Snapshotter

_THREADS_MAX = 16


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer of an image to be pulled: its blob, and the tree that it becomes."""

    blob: Descriptor
    parent: ChainID | None
    diff_id: DiffID

    @property
    def chain(self) -> ChainID:
        return chain_id(self.parent, self.diff_id)


class Unpacking(Job):
    """One layer's tree being laid out from its blob."""

    def __init__(self, unpacker: Unpacker, source: Repository, plan: LayerPlan) -> None:
        super().__init__()
        self.layer: Layer | None = None
        self._unpacker = unpacker
        self._source = source
        self._plan = plan

    async def run(self) -> None:
        downloads = self._unpacker.downloads
        async with downloads.join(self._source, self._plan.blob, _nobody) as transfer:
            await transfer.begun.wait()
            async with self._unpacker.slots.taken(_nothing):
                while self.layer is None:
                    await self._attempt(transfer)
            await transfer.wait()

    async def _attempt(self, transfer: Transfer) -> None:
        reader = transfer.reader()
        meter = Meter()
        loop = asyncio.get_running_loop()
        size, told = self._plan.blob.size, -1

        def report() -> None:
            """In the thread."""
            nonlocal told
            at = reader.position
            if transfer.verified and at != told and meter.due(final=at == size):
                told = at
                bar = progress.bar("Extracting", transfer.label, at, size)
                loop.call_soon_threadsafe(self.tell, bar)

        extracting = loop.run_in_executor(
            self._unpacker.threads, self._unpacker.extract, self._plan, reader, report
        )
        try:
            with storing(f"layer {transfer.label}"):
                self.layer = await finished(extracting, stop=reader.stop)
        except StreamAborted:
            if not reader.void:
                await transfer.wait()
                raise
        except Unavailable:
            raise
        except SampanError as error:
            if not reader.void:
                raise InvalidArgument(
                    f"failed to register layer {transfer.label}: {error.message}"
                ) from error


class Unpacker:
    """The unpackings of one engine."""

    def __init__(
        self,
        snapshots: Snapshotter,
        downloads: Downloads,
        settings: Callable[[], RegistrySettings],
    ) -> None:
        self.downloads = downloads
        self._snapshots = snapshots
        self._settings = settings
        self.slots = Slots(self._limit)
        self._jobs: Jobs[Unpacking] = Jobs()
        self._threads: ThreadPoolExecutor | None = None

    def _limit(self) -> int:
        """As many as arrive at once, so that none which could be worked on waits for one which
        still arrives; and no fewer than there are cores."""
        cores = os.cpu_count() or 1
        return min(_THREADS_MAX, max(cores, self._settings().max_concurrent_downloads))

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Their threads wait for the network, so they are not those that everything else uses."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="unpack")
        return self._threads

    @asynccontextmanager
    async def join(
        self, source: Repository, plan: LayerPlan, listener: Progress
    ) -> AsyncIterator[Unpacking]:
        """The unpacking of a layer, shared with all who need it; it fetches the blob, too."""

        def make() -> Unpacking:
            return Unpacking(self, source, plan)

        key = (
            f"{plan.chain} {plan.blob.digest}"  # each blob has to be the tree that it is said to be
        )
        async with self._jobs.join(key, make, listener) as unpacking:
            yield unpacking

    def extract(self, plan: LayerPlan, reader: Reader, report: Callable[[], None]) -> Layer:
        """In a thread: lay the layer out; returns after the blob was verified to its end.

        A tree that is there already is left as it is, and the blob compared with it: an image that is
        pushed or saved later must not hold bytes that were never this layer.
        """
        is_there = self._snapshots.layers.has(plan.chain)
        try:

            def source(size: int) -> bytes:
                if not is_there:
                    report()
                return reader.read(size)

            plain, compression = decompressed(source)

            def read(size: int) -> bytes:
                data = plain(size)
                if not data:
                    while reader.read(1 << 20):
                        pass  # what follows the compressed stream belongs to the digest, too
                return data

            if is_there:
                _compare(read, plan.diff_id)
                return self._snapshots.layers.get(plan.chain)
            # A plain blob is its own diff; its digest has been verified when `read` is at its end.
            known = None if compression else (lambda: plan.blob.digest)
            layer = self._snapshots.extract(read, plan.parent, plan.diff_id, digest=known)
            report()
            return layer
        finally:
            reader.close()


def _compare(read: Read, diff_id: DiffID) -> None:
    """Read a layer's tar to its end.

    Raises:
        InvalidArgument: it does not hash to `diff_id`.
    """
    sha256 = hashlib.sha256()
    while piece := read(CHUNK):
        sha256.update(piece)
    found = "sha256:" + sha256.hexdigest()
    if found != diff_id:
        raise InvalidArgument(f"invalid diffID for layer: expected {diff_id!r}, got {found!r}")


def _nobody(message: dict[str, Any]) -> None:
    """A listener that does not listen."""


def _nothing() -> None:
    """Nobody is told that an unpacking waits for its turn."""
