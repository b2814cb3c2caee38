"""A bridge from an async stream of chunks to a blocking reader in a worker thread.

The loop feeds, the thread reads; a few MiB lie between them, then the feeder waits: a client that
sends faster than the disk writes is slowed down instead of filling memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

_HIGH_BYTES = 8 << 20
_LOW_BYTES = 2 << 20


class StreamAborted(Exception):
    """The feeder went away before the end of the stream."""


class ChunkPipe:
    """One stream on its way from the loop to a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._condition = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._ended = False
        self._aborted = False
        self._closed = False

    async def feed(self, chunks: AsyncIterator[bytes]) -> None:
        """Pass the whole stream on; ends early, without error, when the reader has closed.

        Cancelled or failing half-way, it makes the reader raise StreamAborted.
        """
        try:
            async for chunk in chunks:
                if not chunk:
                    continue
                await self._room.wait()
                if self._closed:
                    return
                self._put(chunk)
        except BaseException:
            self._end(aborted=True)
            raise
        self._end(aborted=False)

    def read(self, size: int) -> bytes:
        """In the thread: the next bytes, at most `size`; b"" at the end.

        Raises:
            StreamAborted: the stream broke off.
        """
        with self._condition:
            while not self._chunks and not self._ended:
                self._condition.wait()
            if self._aborted:
                raise StreamAborted("the stream broke off")
            if not self._chunks:
                return b""
            data = self._take(size)
            self._buffered -= len(data)
            low = self._buffered < _LOW_BYTES
        if low and not self._room.is_set():
            self._loop.call_soon_threadsafe(self._room.set)
        return data

    def close(self) -> None:
        """In the loop: the reader has ended, nothing more is wanted."""
        self._closed = True
        self._room.set()

    def _take(self, size: int) -> bytes:
        first = self._chunks.popleft()
        if len(first) > size:
            self._chunks.appendleft(first[size:])
            return first[:size]
        parts = [first]
        total = len(first)
        while self._chunks and total + len(self._chunks[0]) <= size:
            parts.append(self._chunks.popleft())
            total += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _put(self, chunk: bytes) -> None:
        with self._condition:
            self._chunks.append(chunk)
            self._buffered += len(chunk)
            if self._buffered >= _HIGH_BYTES:
                self._room.clear()
            self._condition.notify()

    def _end(self, *, aborted: bool) -> None:
        with self._condition:
            self._ended = True
            self._aborted = aborted
            self._condition.notify()


async def consume(
    chunks: AsyncIterator[bytes], work: Callable[[Callable[[int], bytes]], Result]
) -> Result:
    """Run `work(read)` in a thread over an async stream; return what it returns.

    Cancelled, it waits for the thread to give up (its next `read` raises) before it returns.
    """
    pipe = ChunkPipe()
    worker = asyncio.ensure_future(asyncio.to_thread(work, pipe.read))
    feeder = asyncio.ensure_future(pipe.feed(chunks))
    try:
        await asyncio.wait((worker, feeder), return_when=asyncio.FIRST_COMPLETED)
        if not worker.done():
            await feeder  # raises what broke the stream
        return await asyncio.shield(worker)
    finally:
        pipe.close()
        if not feeder.done():
            feeder.cancel()
        await asyncio.wait((worker, feeder))
        for task in (worker, feeder):
            if not task.cancelled():
                task.exception()  # seen: the first failure is the one raised


async def in_thread(work: Callable[[], Result], stop: threading.Event) -> Result:
    """Run blocking work in a thread; cancelled, it sets `stop` and waits for the work to end."""
    worker = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(worker)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait((worker,))
        if not worker.cancelled():
            worker.exception()  # seen
        raise


async def produced(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """What a blocking generator yields, taken from it in a thread, one piece after the other."""
    try:
        while piece := await in_thread(lambda: next(pieces, b""), threading.Event()):
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
