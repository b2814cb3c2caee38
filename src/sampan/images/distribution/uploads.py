"""One blob on its way to a registry: after a cut it goes on where the registry says.

Small blobs go along with the request that closes the upload. Others are sent by one PATCH, or where a
server in front of the registry finds that too much at once (413), by several.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, BinaryIO

from aiohttp import ClientResponse
from yarl import URL

from sampan.errors import SampanError
from sampan.images.distribution.answers import answered
from sampan.images.distribution.failures import RegistryFailure, Temporary, failure_of
from sampan.images.distribution.host import RETRY_AFTER_LIMIT_S
from sampan.images.distribution.transport import IDLE_TIMEOUT_S
from sampan.oci.descriptor import Descriptor

if TYPE_CHECKING:
    from sampan.images.distribution.upload_requests import Uploads

# Up to this size a blob is sent in one request, from memory.
SMALL_BYTES = 256 << 10
CHUNK_BYTES = 1 << 20
# What is sent at once where 413 says that it was too much; OCI's chunks are allowed to be 5 MiB.
PATCH_LIMITS = (64 << 20, 16 << 20, 5 << 20)
# How long a registry may take to store what it has got.
STORE_TIMEOUT_S = 600.0
# Tries in a row that bring the upload no further, and the pauses between them.
FRUITLESS_TRIES = 5
PAUSES_S = (0.2, 1.0, 3.0, 10.0)


class Upload:
    """Sends one blob; what it needs of the protocol is asked of `requests`."""

    def __init__(
        self,
        requests: Uploads,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        progress: Callable[[int], None],
    ) -> None:
        self._requests = requests
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._open_at = open_at
        self._progress = progress
        self._location: URL | None = None
        self._offset = 0  # what the registry has, as far as is known
        self._furthest = 0
        self._tries = 0
        self._limits = [self._size, *(limit for limit in PATCH_LIMITS if limit < self._size)]
        self._source: _Source | None = None

    async def run(self, location: URL | None) -> None:
        """Send it, to an upload that was begun or to a new one.

        Raises:
            Temporary: several tries in a row brought it no further.
            RegistryFailure: the registry refuses it.
            OSError: the blob cannot be read.
        """
        self._location = location
        while True:
            try:
                await self._once()
                return
            except Temporary as failure:
                if await self._recover(failure):
                    return

    async def _once(self) -> None:
        if self._location is None:
            self._location, self._offset = await self._requests.begin(), 0
        data = b""
        if self._size <= SMALL_BYTES and self._offset == 0:
            data = await asyncio.to_thread(_read_all, self._open_at, self._size)
        else:
            while self._offset < self._size:
                await self._patch(self._location)
        response = await self._requests.put(self._location, self._digest, data)
        if response.status not in (200, 201, 204):
            await self._refused(response)
        response.release()
        self._progress(self._size)

    async def _patch(self, location: URL) -> None:
        start = self._offset
        end = min(self._size, start + self._limits[0])
        source = _Source(self._open_at, start, end, self._progress)
        try:
            async with source.watch:
                response = await self._requests.patch(
                    location, source.chunks, start, end, self._size
                )
        except TimeoutError:
            raise Temporary(
                f"{location}: the registry took nothing for {IDLE_TIMEOUT_S:.0f} seconds"
            ) from None
        except SampanError:
            if source.failure is not None:
                raise source.failure from None
            raise
        finally:
            source.close()
        if response.status == 413 and len(self._limits) > 1:
            response.close()
            self._limits.pop(0)
            return
        if response.status not in (200, 201, 202, 204):
            await self._refused(response)
        self._location = await self._requests.location(response, location)
        self._offset = end
        response.release()

    async def _refused(self, response: ClientResponse) -> None:
        """An upload that the registry lost, or has other bytes of than were sent, begins anew."""
        failure = failure_of(await answered(response, self._digest))
        resumed = self._tries > 0 and response.status == 400
        if response.status in (404, 416) or resumed:
            self._location = None
            raise Temporary(failure.message)
        raise failure

    async def _recover(self, failure: Temporary) -> bool:
        """Wait, and find out where to go on; True: the blob is there."""
        while True:
            self._tries += 1
            wait = failure.retry_after
            if self._tries >= FRUITLESS_TRIES or (wait or 0.0) > RETRY_AFTER_LIMIT_S:
                raise failure
            await asyncio.sleep(PAUSES_S[self._tries - 1] if wait is None else wait)
            try:
                return await self._find_place()
            except Temporary as again:
                failure = again

    async def _find_place(self) -> bool:
        if self._location is None:
            return False
        found = await self._requests.written(self._location)
        if found is None or found[1] > self._size:
            # Gone: the answer to the last request may have been lost, and it did its work.
            self._location = None
            return self._offset == self._size and await self._requests.has(self._digest)
        self._location, self._offset = found
        if self._offset > self._furthest:
            self._furthest, self._tries = self._offset, 0
        self._progress(self._offset)
        return False


class _Source:
    """The bytes of one request, read in threads; notes what cannot be read.

    `watch` ends the request when the registry takes nothing, or never answers.
    """

    def __init__(
        self,
        open_at: Callable[[int], BinaryIO],
        start: int,
        end: int,
        progress: Callable[[int], None],
    ) -> None:
        self._open_at = open_at
        self._start = start
        self._end = end
        self._progress = progress
        self._files: list[BinaryIO] = []
        self.failure: Exception | None = None
        self.watch = asyncio.timeout(IDLE_TIMEOUT_S)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes; asked for anew, from the start again."""
        try:
            file = await asyncio.to_thread(self._open_at, self._start)
            self._files.append(file)
            at = self._start
            while at < self._end:
                chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, self._end - at))
                if not chunk:
                    raise RegistryFailure(f"the blob ends at {at} of {self._end} bytes")
                yield chunk
                at += len(chunk)
                self._progress(at)
                self._allow(IDLE_TIMEOUT_S)
            self._allow(STORE_TIMEOUT_S)
        except (OSError, SampanError) as error:
            self.failure = error
            raise

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _allow(self, seconds: float) -> None:
        if not self.watch.expired():
            self.watch.reschedule(asyncio.get_running_loop().time() + seconds)


def _read_all(open_at: Callable[[int], BinaryIO], size: int) -> bytes:
    with open_at(0) as file:
        data = file.read(size + 1)
    if len(data) != size:
        raise RegistryFailure(f"the blob has {len(data)} bytes, its descriptor says {size}")
    return data
