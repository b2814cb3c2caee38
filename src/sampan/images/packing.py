"""Packing: the plain layers of an image are compressed before its first push.

An archive of `docker save` has its layers plain; loading keeps them so, which is quick, but no
network should carry them so. The image gets a manifest with gzip layers, its ID stays, and the
plain blobs go. A manifest that was made elsewhere is left alone: it has a digest that somebody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from isal import isal_zlib

from sampan.content.store import ContentStore
from sampan.images import progress
from sampan.images.disk import storing
from sampan.images.distribution.single_flight import SingleFlight
from sampan.images.image import Image
from sampan.images.progress import Meter, Progress
from sampan.images.register import Register
from sampan.images.slots import Slots
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest, short_id
from sampan.oci.manifest import Manifest, encode_manifest, parse_manifest

_PIECE = 1 << 20
_LEVEL = 1
"""ISA-L's fastest; images/making.py has the figures."""
_GZIP = 31
"""zlib's window bits for a gzip stream."""
_AT_ONCE = 2


class Packer:
    """Packs the images of one engine."""

    def __init__(self, content: ContentStore, register: Register) -> None:
        self._content = content
        self._register = register
        self._slots = Slots(lambda: _AT_ONCE)
        self._flights: SingleFlight[Digest, Descriptor] = SingleFlight()

    def is_needed(self, image: Image) -> bool:
        """Whether the image has plain layers, and a manifest that nobody else knows."""
        return not image.repo_digests and self._own_plain(self._read(image)) is not None

    async def pack(self, image: Image, report: Progress) -> None:
        """Compress the plain layers and give the image its new manifest; to be called while
        everything that is made is held.

        Raises:
            Unavailable: the disk is full.
        """
        manifest = self._own_plain(self._read(image))
        if manifest is None or self._register.catalog.by_id(image.id) is not image:
            return
        labels = [short_id(diff_id) for diff_id in image.layers]
        pairs = zip(manifest.layers, labels, strict=True)
        layers = await asyncio.gather(
            *(self._packed(descriptor, label, report) for descriptor, label in pairs)
        )
        data = encode_manifest(manifest.config, list(layers))
        digest = self._content.put(data)
        described = Descriptor(media_type=media_types.OCI_MANIFEST, digest=digest, size=len(data))
        if self._register.catalog.by_id(image.id) is image:
            self._register.repack(image, described)

    def _read(self, image: Image) -> bytes:
        return self._content.read(Digest(image.record.manifest_digest))

    def _own_plain(self, data: bytes) -> Manifest | None:
        """The manifest, if it was written here and has plain layers."""
        manifest = parse_manifest(data)
        if not any(_is_plain(layer) for layer in manifest.layers):
            return None
        return manifest if encode_manifest(manifest.config, manifest.layers) == data else None

    async def _packed(self, layer: Descriptor, label: str, report: Progress) -> Descriptor:
        if not _is_plain(layer):
            return layer
        return await self._flights.run(layer.digest, lambda: self._pack(layer, label, report))

    async def _pack(self, layer: Descriptor, label: str, report: Progress) -> Descriptor:
        loop = asyncio.get_running_loop()
        meter = Meter()

        def done(count: int) -> None:
            if meter.due():
                bar = progress.bar("Compressing", label, count, layer.size)
                loop.call_soon_threadsafe(report, bar)

        async with self._slots.taken(lambda: None):
            with storing(f"layer {label}, compressed"):
                return await asyncio.to_thread(self._compress, layer, done)

    def _compress(self, layer: Descriptor, done: Callable[[int], None]) -> Descriptor:
        """In a thread: the blob, compressed. The same bytes always give the same blob."""
        engine = isal_zlib.compressobj(_LEVEL, wbits=_GZIP)
        count = 0
        with self._content.open(layer.digest) as plain, self._content.writer() as writer:
            while piece := plain.read(_PIECE):
                writer.write(engine.compress(piece))
                count += len(piece)
                done(count)
            writer.write(engine.flush())
            digest = writer.commit()
        return Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=digest, size=writer.size)


def _is_plain(layer: Descriptor) -> bool:
    return layer.media_type == media_types.OCI_LAYER
