"""Packing: the plain layers of an image are compressed before its first push.

An archive of `docker save` has its layers plain; loading keeps them so, which is quick, but no
network should carry them so. The image gets a manifest with gzip layers, its ID stays, and the
plain blobs go. A manifest that was made elsewhere is left alone: it has a digest that somebody knows.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from isal import isal_zlib

from sampan.content.store import ContentStore
from sampan.images import progress
from sampan.images.disk import storing
from sampan.images.image import Image
from sampan.images.pipe import StreamAborted, in_thread
from sampan.images.progress import Meter, Progress
from sampan.images.register import Register
from sampan.images.shared import Job, Jobs
from sampan.images.slots import Slots
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest, short_id
from sampan.oci.manifest import Manifest, encode_manifest, parse_manifest

_PIECE = 1 << 20
_LEVEL = 1
"""ISA-L's fastest; images/making/layers.py has the figures."""
_GZIP = 31
"""zlib's window bits for a gzip stream."""
_AT_ONCE = 2


class Packer:
    """Packs the images of one engine."""

    def __init__(self, content: ContentStore, register: Register) -> None:
        self.slots = Slots(lambda: _AT_ONCE)
        self.content = content
        self._register = register
        self._jobs: Jobs[_Packing] = Jobs()

    @asynccontextmanager
    async def packed(self, image: Image, what: str, report: Progress) -> AsyncIterator[None]:
        """Compress the plain layers and give the image its new manifest, if that is needed.

        At the end of the `with` the plain blobs go. Power may fail at any time: the new blobs are
        on the disk before a row names them, and that row is before the plain ones are gone.
        `what` is the operation in the user's words; `report` gets bars of the layers.

        Raises:
            Unavailable: the disk is full.
        """
        manifest = self.own_manifest(image)
        if manifest is None or not any(_is_plain(layer) for layer in manifest.layers):
            yield
            return
        # One hold keeps what there is, the other what is being made.
        with self._register.hold(what, images=[image]), self._register.hold(what):
            await self._pack(image, manifest, report)
            settling = asyncio.create_task(asyncio.to_thread(self.content.sync))
            try:
                yield
            finally:
                await asyncio.wait((settling,))
                settling.result()

    def own_manifest(self, image: Image) -> Manifest | None:
        """The image's manifest, if it was written here and nobody else knows it."""
        if image.repo_digests:
            return None
        data = self.content.read(Digest(image.record.manifest_digest))
        manifest = parse_manifest(data)
        return manifest if encode_manifest(manifest.config, manifest.layers) == data else None

    async def replace(self, image: Image, what: str, media_type: str, data: bytes) -> None:
        """Give an image another manifest of the same blobs, as safely as `packed` does."""
        with self._register.hold(what, images=[image]), self._register.hold(what):
            await self._adopt(image, media_type, data)
            await asyncio.to_thread(self.content.sync)

    async def _pack(self, image: Image, manifest: Manifest, report: Progress) -> None:
        layers = await self._layers(image, manifest, report)
        data = encode_manifest(manifest.config, layers)
        await self._adopt(image, media_types.OCI_MANIFEST, data)

    async def _adopt(self, image: Image, media_type: str, data: bytes) -> None:
        digest = self.content.put(data)
        described = Descriptor(media_type=media_type, digest=digest, size=len(data))
        await asyncio.to_thread(self.content.sync)
        if self._register.catalog.by_id(image.id) is image:  # it may have been removed meanwhile
            self._register.repack(image, described)

    async def _layers(self, image: Image, manifest: Manifest, report: Progress) -> list[Descriptor]:
        """The manifest's layers, none of them plain."""
        labels = [short_id(diff_id) for diff_id in image.layers]
        pairs = list(zip(manifest.layers, labels, strict=True))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._layer(layer, label, report)) for layer, label in pairs
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def _layer(self, layer: Descriptor, label: str, report: Progress) -> Descriptor:
        if not _is_plain(layer):
            return layer
        async with self._jobs.join(
            layer.digest, lambda: _Packing(self, layer, label), report
        ) as packing:
            await packing.wait()
            return packing.packed


class _Packing(Job):
    """One layer being compressed, for all images that have it; `packed` describes the result."""

    def __init__(self, packer: Packer, layer: Descriptor, label: str) -> None:
        super().__init__()
        self.packed = layer
        self._packer = packer
        self._layer = layer
        self._label = label
        self._stop = threading.Event()

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._packer.slots.taken(lambda: None):
            with storing(f"layer {self._label}, compressed"):
                self.packed = await in_thread(self._compress, self._stop)

    def _compress(self) -> Descriptor:
        """In a thread. The same bytes always give the same blob."""
        engine = isal_zlib.compressobj(_LEVEL, wbits=_GZIP)
        content, meter, count = self._packer.content, Meter(), 0
        with content.open(self._layer.digest) as plain, content.writer() as writer:
            while piece := plain.read(_PIECE):
                if self._stop.is_set():
                    raise StreamAborted("nobody wants it any more")
                writer.write(engine.compress(piece))
                count += len(piece)
                if meter.due():
                    self._tell_later(count)
            writer.write(engine.flush())
            digest = writer.commit()
        return Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=digest, size=writer.size)

    def _tell_later(self, count: int) -> None:
        bar = progress.bar("Compressing", self._label, count, self._layer.size)
        self._loop.call_soon_threadsafe(self.tell, bar)


def _is_plain(layer: Descriptor) -> bool:
    return layer.media_type == media_types.OCI_LAYER
