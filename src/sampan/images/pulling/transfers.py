"""Downloads: each blob once, whoever needs it, continued where the last attempt stopped.

    slot → what is on disk is hashed → GET with Range → pieces hashed and written → verified

A piece is written by a thread while the next one arrives; two pieces of a blob are in memory at
most. Readers follow the growing file, so that a layer is unpacked while it arrives, and downloading
never waits for unpacking. A verified blob stays a partial file until the pull that wanted it has
all of its image; so what a killed engine had fetched is found again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sampan.content.partial import DigestMismatch, Partial
from sampan.content.store import ContentStore
from sampan.errors import SampanError
from sampan.images import progress
from sampan.images.disk import storing
from sampan.images.distribution.failures import RegistryFailure, Temporary
from sampan.images.distribution.interface import BlobStream, Repository
from sampan.images.distribution.settings import RegistrySettings
from sampan.images.progress import Meter, Progress
from sampan.images.pulling.growing import Growing, Reader
from sampan.images.retrying import count_down, delay_s
from sampan.images.shared import Job, Jobs, ended
from sampan.images.slots import Slots
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import short_id

Result = TypeVar("Result")

_PIECE = 1 << 20
"""What is collected before a thread is given it."""
_PIECE_AGE_S = 1.0
_FRUIT = 1 << 16
"""An attempt that brought less counts as a failed one."""
_ANEW_MAX = 2
"""How often a blob whose parts do not fit is fetched from the start again."""


class Transfer(Job):
    """The download of one blob. Everything but readers is on the event loop."""

    def __init__(self, downloads: Downloads, source: Repository, descriptor: Descriptor) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.label = short_id(descriptor.digest)
        self.begun = asyncio.Event()
        """Set when there are bytes to read, or it has ended."""
        self._downloads = downloads
        self._content = downloads.content
        self._source = source
        self._partial: Partial = downloads.content.partial(descriptor.digest)
        self._stored = False
        self._file = Growing(self._open)
        self._in_parts = False
        self._meter = Meter()

    async def run(self) -> None:
        try:
            await self._fetch()
        finally:
            self._file.end()
            self.begun.set()
            self._partial.suspend()

    def reader(self) -> Reader:
        """A view from the first byte on, for one thread. It has to be closed."""
        return Reader(self._file)

    @property
    def verified(self) -> bool:
        """Whether the whole blob is there."""
        return self._file.verified

    def commit(self) -> None:
        """Make a verified blob one of the store's."""
        self._partial.commit()

    # -- Fetching ---------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        if self._content.has(self.descriptor.digest):
            self._stored = True
            self._publish(self.descriptor.size)
        else:
            waiting = progress.step("Waiting", self.label)
            async with self._downloads.slots.taken(lambda: self.tell(waiting)):
                await self._finish()
        self._file.verify()
        self.tell(progress.step("Download complete", self.label))

    async def _finish(self) -> None:
        """Have all of it in the file, verified; once more from the start if parts do not fit."""
        self._publish(await _in_thread(self._resume))
        for begun_anew in itertools.count():
            await self._download()
            self.tell(progress.step("Verifying Checksum", self.label))
            try:
                self._partial.verify(self.descriptor.size)
                return
            except DigestMismatch:
                # A registry that always cuts and always lies is not asked for ever.
                if not self._in_parts or begun_anew == _ANEW_MAX:
                    self._partial.discard()
                    raise
            self._restart()

    def _restart(self) -> None:
        """What was there before, or came over several connections, did not belong together."""
        self._file.restart()
        self._partial.restart()
        self._in_parts = False

    async def _download(self) -> None:
        """Fetch what is missing, over as many connections as it takes.

        Only attempts in a row that brought next to nothing are counted.
        """
        fruitless = 0
        while (before := self._partial.size) < self.descriptor.size:
            try:
                await self._attempt()
            except Temporary as error:
                brought = self._partial.size - before
                fruitless = 0 if brought >= _FRUIT else fruitless + 1
                if fruitless >= self._downloads.attempts:
                    raise Temporary(f"layer {self.label}: {error.message}") from error
                wait_s = delay_s(fruitless, error)
                await count_down(wait_s, self.label, self.tell, second_s=self._downloads.second)
                self._in_parts = True

    async def _attempt(self) -> None:
        start = self._partial.size
        async with self._source.blob(self.descriptor, offset=start) as stream:
            skip = start - stream.offset
            if skip < 0:
                raise RegistryFailure(f"layer {self.label}: the registry left out {-skip} bytes")
            sink = _Sink(self._write)
            try:
                received = stream.offset
                async for chunk in stream.chunks():
                    received += len(chunk)
                    if received > self.descriptor.size:
                        raise RegistryFailure(
                            f"layer {self.label}: the registry sends more than the "
                            f"{self.descriptor.size} bytes of its manifest"
                        )
                    if skip:
                        chunk, skip = chunk[skip:], max(0, skip - len(chunk))
                    await sink.add(chunk)
                    self.begun.set()
                    self._draw(received)
            finally:
                await sink.flush()
        if self._partial.size < self.descriptor.size:
            raise Temporary("unexpected EOF")

    def _draw(self, received: int) -> None:
        if self._meter.due(final=received == self.descriptor.size):
            size = self.descriptor.size
            self.tell(progress.bar("Downloading", self.label, received, size))

    # -- Threads ----------------------------------------------------------------------------------

    def _resume(self) -> int:
        """In a thread: hash what is on disk."""
        with storing(f"layer {self.label}"):
            size = self._partial.resume(self.descriptor.size)
        self._in_parts = size > 0
        return size

    def _write(self, chunks: list[bytes]) -> None:
        """In a thread: hash and store; readers see it."""
        try:
            with storing(f"layer {self.label}"):
                for chunk in chunks:
                    self._partial.write(chunk)
        finally:
            self._file.grown(self._partial.size)

    def _publish(self, size: int) -> None:
        self._file.grown(size)
        if size:
            self.begun.set()

    def _open(self) -> int:
        """A descriptor for a reader: of the partial file, or of the blob that it has become."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        if not self._stored:
            try:
                return os.open(self._partial.path, flags)
            except FileNotFoundError:
                pass
        return os.open(self._content.path(self.descriptor.digest), flags)


class _Sink:
    """Collects chunks, and has one lot written while the next is collected."""

    def __init__(self, write: Callable[[list[bytes]], None]) -> None:
        self._write = write
        self._chunks: list[bytes] = []
        self._size = 0
        self._since = time.monotonic()
        self._writing: asyncio.Future[None] | None = None

    async def add(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size >= _PIECE or time.monotonic() - self._since > _PIECE_AGE_S:
            await self._written()
            self._begin()

    async def flush(self) -> None:
        """Write the rest; returns when everything is, also when cancelled meanwhile."""
        await self._written()
        if self._chunks:
            self._begin()
            await self._written()

    def _begin(self) -> None:
        chunks, self._chunks, self._size = self._chunks, [], 0
        self._since = time.monotonic()
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._write, chunks)

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            await finished(writing)
        except SampanError:
            self._chunks = []  # they would follow a gap
            raise


class Downloads:
    """The downloads of one engine."""

    second = 1.0
    """The length of a second of a retry's count-down."""

    def __init__(self, content: ContentStore, settings: Callable[[], RegistrySettings]) -> None:
        self.content = content
        self._settings = settings
        self.slots = Slots(lambda: self._settings().max_concurrent_downloads)
        self._jobs: Jobs[Transfer] = Jobs()

    @property
    def attempts(self) -> int:
        return max(1, self._settings().max_download_attempts)

    @asynccontextmanager
    async def join(
        self, source: Repository, descriptor: Descriptor, listener: Progress
    ) -> AsyncIterator[Transfer]:
        """The download of a blob, shared with all who need it."""

        def make() -> Transfer:
            return Transfer(self, source, descriptor)

        async with self._jobs.join(descriptor.digest, make, listener) as transfer:
            yield transfer

    async def small(self, source: Repository, descriptor: Descriptor) -> bytes:
        """A blob that is small enough for the memory, of the size that its descriptor says.

        Raises:
            SampanError: the registry's refusal; Temporary after several attempts.
        """
        for attempt in itertools.count(1):
            try:
                async with source.blob(descriptor) as stream:
                    return await _collected(stream, descriptor.size)
            except Temporary as error:
                if attempt >= self.attempts:
                    raise
                await asyncio.sleep(delay_s(attempt, error) * self.second)
        raise AssertionError("the loop ends by itself")


async def _collected(stream: BlobStream, size: int) -> bytes:
    data = b"".join([chunk async for chunk in stream.chunks()])
    if len(data) < size:
        raise Temporary("unexpected EOF")
    return data


async def finished(
    future: asyncio.Future[Result], *, stop: Callable[[], None] | None = None
) -> Result:
    """What a thread's future gives; cancelled meanwhile, this waits for the thread all the same,
    after it was told to `stop`."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        try:
            await ended(future)
        finally:
            future.exception()  # seen
        raise


async def _in_thread(work: Callable[[], int]) -> int:
    return await finished(asyncio.get_running_loop().run_in_executor(None, work))
