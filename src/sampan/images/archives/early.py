"""Layers of an archive are laid out while the rest of it still arrives.

What says which of an archive's files are layers, and in which order they stand, often comes last. A
layer's tree does not depend on what it stands on, so every file that looks like one is unpacked as
soon as it is stored, and takes its place when its place is known. What turns out to be no layer,
or cannot be unpacked, is forgotten: it costs time, and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sampan.content.compression import compression_of, decompressed
from sampan.content.store import ContentStore
from sampan.errors import InvalidArgument
from sampan.images.disk import storing
from sampan.oci.digest import ChainID, DiffID, Digest, short_id
from sampan.oci.tar import CHUNK
from sampan.snapshots.layers import Layer, Layers, LooseLayer

Report = Callable[[dict[str, Any]], None]

_WORKERS = max(2, min(4, os.cpu_count() or 1))
"""More keep each other waiting: a fifth of the work holds the interpreter's lock."""
_HEAD = 512
_MAGIC_AT, _MAGIC = 257, b"ustar"


class EarlyLayers:
    """The unpacking of one archive's layers; as a context manager it leaves nothing behind.

    `offer` and `layer` are called from one thread, `report` from those that unpack.
    """

    def __init__(self, content: ContentStore, layers: Layers, report: Report) -> None:
        self._content = content
        self._layers = layers
        self._report = report
        self._closed = False
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="layers")
        self._begun: dict[Digest, Future[LooseLayer]] = {}

    def __enter__(self) -> EarlyLayers:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        for future in self._begun.values():
            if not future.cancelled() and future.exception() is None:
                self._layers.discard(future.result())

    def offer(self, blob: Digest) -> None:
        """A blob is stored: begin to unpack it, if it looks like a layer."""
        if blob not in self._begun and self._looks_like_layer(blob):
            self._begun[blob] = self._pool.submit(self._unpack, blob)

    def want(self, blob: Digest) -> None:
        """A blob is a layer that is not there: begin to unpack it, unless that was done."""
        if blob not in self._begun:
            self._begun[blob] = self._pool.submit(self._unpack, blob)

    def layer(self, blob: Digest, parent: ChainID | None, diff_id: DiffID) -> Layer:
        """The layer of a blob on top of `parent`; waits for its unpacking.

        Raises:
            BadArchive, BadLayer, BadCompression: the blob is no layer, or a damaged one.
            InvalidArgument: it is not `diff_id`.
            Unavailable: the disk is full.
        """
        self.want(blob)
        with storing(f"layer {short_id(diff_id)}"):
            return self._layers.adopt(self._begun.pop(blob).result(), parent, diff_id)

    def _looks_like_layer(self, blob: Digest) -> bool:
        with self._content.open(blob) as file:
            head = file.read(_HEAD)
        return bool(compression_of(head)) or head[_MAGIC_AT:].startswith(_MAGIC)

    def _unpack(self, blob: Digest) -> LooseLayer:
        with self._content.open(blob) as file:
            counter = _Counter(file.read, self._content.size(blob), blob, self._report)

            def read(size: int) -> bytes:
                if self._closed:
                    raise _GivenUp
                return counter.read(size)

            plain, compression = decompressed(read)
            # A plain blob's digest was computed when it was stored.
            digest = (lambda: blob) if not compression else None
            loose = self._layers.unpack(plain, digest=digest)
        counter.report()
        return loose


class _GivenUp(InvalidArgument):
    """The load ended; nobody waits for the layer."""

    def __init__(self) -> None:
        super().__init__("the load was given up")


class _Counter:
    """Reads a blob and reports how far it got, every few MiB."""

    _STEP = 4 << 20

    def __init__(
        self, read: Callable[[int], bytes | None], total: int, blob: Digest, report: Report
    ) -> None:
        self._read = read
        self._total = total
        self._id = short_id(blob)
        self._report = report
        self._current = 0
        self._next = self._STEP

    def read(self, size: int) -> bytes:
        data = self._read(min(size, CHUNK)) or b""
        self._current += len(data)
        if self._current >= self._next:
            self._next = self._current + self._STEP
            self.report()
        return data

    def report(self) -> None:
        detail = {"current": self._current, "total": self._total}
        self._report({"status": "Loading layer", "progressDetail": detail, "id": self._id})
