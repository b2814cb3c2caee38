"""The register: which images there are, in the rows, in memory and in the layout's index.

Whatever has no row is garbage: it is collected when the register opens and after each change,
but not while somebody holds, who is about to name, or still reads, what nothing else names.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from sampan.content.store import ContentStore
from sampan.errors import InvalidArgument, NotFound
from sampan.images import save as saving
from sampan.images.catalog import Catalog
from sampan.images.image import Image
from sampan.images.load import Loaded
from sampan.oci.digest import ChainID, Digest
from sampan.oci.manifest import parse_manifest
from sampan.oci.reference import Reference, parse_reference
from sampan.snapshots.overlay import Snapshotter
from sampan.state.images import ImageRecord, ImageRow, ImageRows

log = logging.getLogger(__name__)

Emit = Callable[[str, str, dict[str, str]], None]
"""Tells of an event: action, image ID, attributes."""


class Register:
    """The images of one engine, named and stored."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        content: ContentStore,
        snapshots: Snapshotter,
        rows: ImageRows,
        emit: Emit,
    ) -> None:
        self.catalog = catalog
        self._content = content
        self._snapshots = snapshots
        self._rows = rows
        self._emit = emit
        self._holds = 0
        self._blobs: dict[str, list[Digest]] = {}  # by manifest; a manifest never changes

    def open(self) -> None:
        """Fill the catalog from the rows; drop what no row names."""
        images = {}
        for row in self._rows.images():
            try:
                images[row.id] = self._stored(row)
            except (NotFound, InvalidArgument) as error:
                # The machine went down before the disk had it all; the rest of the engine goes on.
                log.error("image %s is damaged and was removed: %s", row.id, error.message)
                self._rows.delete(row.id)
            else:
                self.catalog.add(images[row.id])
        for reference, image_id in self._rows.references():
            self.catalog.refer(parse_reference(reference), images[image_id])
        self._collect()
        self.publish()

    def _stored(self, row: ImageRow) -> Image:
        """An image of which all parts are there, in their size.

        Raises:
            NotFound, InvalidArgument: they are not.
        """
        record = row.record
        identity = Digest(row.id)
        image = Image(self._content.read_verified(identity), identity, record)
        data = self._content.read_verified(Digest(record.manifest_digest))
        for blob in parse_manifest(data).layers:
            if self._content.size(blob.digest) != blob.size:
                raise InvalidArgument(f"content {blob.digest} is cut short")
        if image.chain_id:
            stack = self._snapshots.layers.stack(image.chain_id)
            image.size = sum(layer.size for layer in stack)
        return image

    def register(self, loaded: Loaded, action: str) -> tuple[Image, dict[str, Image]]:
        """Name what was put in place: rows, catalog, events.

        Returns the image, and which images had its names before.
        """
        image = self.catalog.by_id(loaded.id)
        if image is None:
            image = Image(loaded.config, loaded.id, _record(loaded), size=loaded.size)
        image.record = _record(loaded)
        previous = self._rows.database.write(lambda _: self._add(image, loaded.references))
        self._snapshots.warm(image.parent)
        self.publish()
        for name in [reference.familiar for reference in loaded.references] or [image.id]:
            self.tell(action, image, name)
        return image, previous

    def tag(self, reference: Reference, image: Image) -> None:
        """Give an image a further name."""
        self._rows.database.write(lambda _: self._refer(reference, image))
        self.publish()
        self.tell("tag", image, reference.familiar)

    def _add(self, image: Image, references: Sequence[Reference]) -> dict[str, Image]:
        """Inside a transaction: the image and its names; returns who had the names before."""
        self._rows.put(ImageRow(image.id, image.created_ns, image.record))
        self.catalog.add(image)
        previous = {}
        for reference in references:
            before = self._refer(reference, image)
            if before is not None:
                previous[reference.familiar] = before
        return previous

    def _refer(self, reference: Reference, image: Image) -> Image | None:
        self._rows.refer(str(reference), image.id)
        image.record = msgspec.structs.replace(image.record, tagged_ns=time.time_ns())
        self._rows.put(ImageRow(image.id, image.created_ns, image.record))
        return self.catalog.refer(reference, image)

    def untag(self, image: Image, reference: Reference) -> dict[str, str]:
        """Take one name away; say so in Docker's words."""
        self._rows.unrefer(str(reference))
        self.catalog.unrefer(reference)
        self.tell("untag", image, image.id)
        return {"Untagged": reference.familiar}

    def delete(self, image: Image) -> list[dict[str, str]]:
        """Delete an image without names, and what only it needed."""
        self._rows.delete(image.id)
        self.catalog.remove(image)
        self.tell("delete", image, image.id)
        deleted: list[str] = [image.id]
        if image.chain_id:
            deleted += self._snapshots.released(image.chain_id, self._chains())
        self._collect()
        return [{"Deleted": digest} for digest in deleted]

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Put collection off while unnamed content is being made or read.

        What got no name in the end (an archive's lists, all of a load that failed) goes after.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._collect()

    def _collect(self) -> None:
        """Delete the blobs and layers that no image names, unless something is under way."""
        if self._holds:
            return
        self._snapshots.collect(self._chains())
        named: set[Digest] = set()
        for image in self.catalog:
            named.update(self._blobs_of(image))
        for digest in self._content.digests():
            if digest not in named:
                self._content.delete(digest)

    def _blobs_of(self, image: Image) -> list[Digest]:
        manifest = image.record.manifest_digest
        blobs = self._blobs.get(manifest)
        if blobs is None:
            blobs = self._blobs[manifest] = saving.image_blobs(self._content, image)
        return blobs

    def publish(self) -> None:
        """Bring the layout's index.json up to date, for tools that read the store."""
        selections = [saving.Selection(image, image.references) for image in self.catalog]
        self._content.write_index(saving.layout_index(selections))

    def tell(self, action: str, image: Image, name: str) -> None:
        """Emit an event; its attributes are the labels, and the name it happened under."""
        self._emit(action, image.id, {**(image.config.labels or {}), "name": name})

    def _chains(self) -> list[ChainID]:
        return [image.chain_id for image in self.catalog if image.chain_id]

    def flush(self) -> None:
        """Have what was added written to the disk soon, without anybody waiting for it."""
        flushing = asyncio.get_running_loop().run_in_executor(None, self._content.sync)
        flushing.add_done_callback(_report_flush)


def _record(loaded: Loaded) -> ImageRecord:
    return ImageRecord(
        manifest_media_type=loaded.manifest.media_type,
        manifest_digest=loaded.manifest.digest,
        manifest_size=loaded.manifest.size,
        tagged_ns=time.time_ns() if loaded.references else 0,
        parent=loaded.parent,
        index_digest=loaded.index_digest,
    )


def _report_flush(flushing: asyncio.Future[None]) -> None:
    if not flushing.cancelled() and (error := flushing.exception()) is not None:
        log.error("images: what was added may not be on the disk: %s", error)
