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
import threading
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
from sampan.images.pipe import StreamAborted
from sampan.images.progress import Meter, Progress
from sampan.images.shared import Job, Jobs, ended
from sampan.images.slots import Slots
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest, short_id

Result = TypeVar("Result")

PIECE = 1 << 20
"""What is collected before a thread is given it."""
_PIECE_AGE_S = 1.0
_FRUIT = 1 << 16
"""An attempt that brought less counts as a failed one."""
_ANEW_MAX = 2
"""How often a blob whose parts do not fit is fetched from the start again."""
_RETRY_AFTER_MAX_S = 600
_DELAY_MAX_S = 20


class Restarted(StreamAborted):
    """The bytes read so far were not the blob's; it is fetched anew."""


class Transfer(Job):
    """The download of one blob. Everything but readers is on the event loop."""

    def __init__(self, downloads: Downloads, source: Repository, descriptor: Descriptor) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.label = short_id(descriptor.digest)
        self.begun = asyncio.Event()
        """Set when there are bytes to read, or it has ended."""
        self.verified = False
        self._downloads = downloads
        self._content = downloads.content
        self._source = source
        self._partial: Partial = downloads.content.partial(descriptor.digest)
        self._stored = False
        self._changed = threading.Condition()
        self._available = 0
        self._generation = 0
        self._ended = False
        self._in_parts = False
        self._meter = Meter()

    async def run(self) -> None:
        try:
            await self._fetch()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self.begun.set()
            self._partial.suspend()

    def reader(self) -> Reader:
        """A view from the first byte on, for one thread. It has to be closed."""
        return Reader(self)

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
        with self._changed:
            self.verified = True
            self._changed.notify_all()
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
        with self._changed:
            self._generation += 1
            self._available = 0
            self._changed.notify_all()
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
                await self._pause(_delay(fruitless, error))
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

    async def _pause(self, seconds: int) -> None:
        """Count down to the next attempt, as docker does."""
        for left in range(seconds, 0, -1):
            plural = "" if left == 1 else "s"
            self.tell(progress.step(f"Retrying in {left} second{plural}", self.label))
            await asyncio.sleep(self._downloads.second)

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
            with self._changed:
                self._available = self._partial.size
                self._changed.notify_all()

    def _publish(self, size: int) -> None:
        with self._changed:
            self._available = size
            self._changed.notify_all()
        if size:
            self.begun.set()


class Reader:
    """Reads a blob from its first byte in a thread, waiting for what has not arrived.

    At the end `read` gives b"" only when the blob has been verified.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._generation = transfer._generation
        self._file = -1
        self._closed = False
        self.position = 0

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`.

        Raises:
            Restarted: what was read is void.
            StreamAborted: the download failed, or the reader was closed.
        """
        available = self._wait()
        if not available:
            return b""
        if self._file < 0:
            self._file = self._open()
        data = os.read(self._file, min(size, available))
        if not data:
            raise Restarted("the file is begun anew")
        self.position += len(data)
        return data

    @property
    def void(self) -> bool:
        """Whether what was read so far has turned out not to be the blob's."""
        return self._generation != self._transfer._generation

    def stop(self) -> None:
        """From any thread: make the reading thread give up."""
        with self._transfer._changed:
            self._closed = True
            self._transfer._changed.notify_all()

    def close(self) -> None:
        """In the reading thread, at its end."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _wait(self) -> int:
        """Bytes that can be read now, at least one; 0 at the verified end."""
        transfer = self._transfer
        with transfer._changed:
            while True:
                if self._closed:
                    raise StreamAborted("nobody needs it any more")
                if self.void:
                    raise Restarted("the blob is fetched anew")
                if self.position < transfer._available:
                    return transfer._available - self.position
                if transfer.verified:
                    return 0
                if transfer._ended:
                    raise StreamAborted("the download failed")
                transfer._changed.wait()

    def _open(self) -> int:
        transfer = self._transfer
        flags = os.O_RDONLY | os.O_CLOEXEC
        if not transfer._stored:
            try:
                return os.open(transfer._partial.path, flags)
            except FileNotFoundError:
                pass  # a blob of the store by now
        return os.open(transfer._content.path(transfer.descriptor.digest), flags)


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
        if self._size >= PIECE or time.monotonic() - self._since > _PIECE_AGE_S:
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

    def under_way(self) -> set[Digest]:
        """The blobs being fetched, or fetched for a pull that is not through."""
        return {Digest(key) for key in self._jobs.keys}

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
                await asyncio.sleep(_delay(attempt, error) * self.second)
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


def _delay(fruitless: int, error: Temporary) -> int:
    """Seconds until the next attempt: the registry's wish, else 1, 2, 4, … 20.

    Raises:
        Temporary: the registry asks for more patience than a pull has.
    """
    if error.retry_after is None:
        return min(1 << max(0, fruitless - 1), _DELAY_MAX_S)
    if error.retry_after > _RETRY_AFTER_MAX_S:
        raise error
    return max(1, round(error.retry_after))
