"""The register: which images there are, in the rows, in memory and in the layout's index.

Whatever has no row is garbage, and goes (`images.keeping.collecting`).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import msgspec

from sampan.content.store import ContentStore
from sampan.errors import InvalidArgument, NotFound, RuntimeFailure
from sampan.images.archives import save as saving
from sampan.images.archives.load import Loaded
from sampan.images.catalog import Catalog
from sampan.images.disk import storing
from sampan.images.image import Image
from sampan.images.keeping.collecting import Collector
from sampan.images.keeping.holds import Hold
from sampan.images.keeping.needs import Parts
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import ChainID, Digest, short_id
from sampan.oci.manifest import parse_manifest
from sampan.oci.reference import Reference, parse_reference
from sampan.snapshots.overlay import Snapshotter
from sampan.state.blob_sources import BlobSources
from sampan.state.database import Database
from sampan.state.images import ImageRecord, ImageRow, ImageRows

log = logging.getLogger(__name__)

Emit = Callable[[str, str, dict[str, str]], None]
"""Tells of an event: action, image ID, attributes."""

_USE_STEP_NS = 60_000_000_000
"""How exactly the time of the last use is kept: a create writes it once a minute at most."""


class Register:
    """The images of one engine, named and stored.

    `let_go_bytes` counts what deletions gave back since the register was opened.
    """

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
        self.collector = Collector(content, snapshots)
        self.holds, self.needs = self.collector.holds, self.collector.needs
        self.let_go_bytes = 0
        self.sources = BlobSources(rows.database)
        self._content = content
        self._snapshots = snapshots
        self._rows = rows
        self._emit = emit

    def open(self) -> None:
        """Fill the catalog from the rows; drop what no row names."""
        images = {}
        for row in self._rows.images():
            try:
                image, parts = self._stored(row)
            except (NotFound, InvalidArgument) as error:
                # The machine went down before the disk had it all; the rest of the engine goes on.
                log.error("image %s is damaged and was removed: %s", row.id, error.message)
                self._rows.delete(row.id)
            else:
                images[row.id] = image
                self.catalog.add(image)
                self.needs.put(image.id, parts)
        for reference, image_id in self._rows.references():
            self.catalog.refer(parse_reference(reference), images[image_id])
        self._snapshots.collect([image.chain_id for image in self.catalog if image.chain_id])
        self.collector.open()
        self.sources.keep_only(set(self._content.digests()))
        self.publish()

    def _stored(self, row: ImageRow) -> tuple[Image, Parts]:
        """An image of which all parts are there, in their size.

        Raises:
            NotFound, InvalidArgument: they are not.
        """
        record = row.record
        if record.index_digest and not self._content.has(Digest(record.index_digest)):
            # It tells of other platforms; the image is whole without it.
            record = msgspec.structs.replace(record, index_digest="")
        identity = Digest(row.id)
        image = Image(self._content.read_verified(identity), identity, record)
        parts = self._parts(identity, image.chain_id, record)
        for digest, size in parts.blobs.items():
            if self._content.size(digest) != size:
                raise InvalidArgument(f"content {digest} is cut short")
        if image.chain_id:
            stack = self._snapshots.layers.stack(image.chain_id)
            image.size = sum(layer.size for layer in stack)
        return image, parts

    def _parts(self, identity: Digest, chain: ChainID | None, record: ImageRecord) -> Parts:
        """What an image needs: its layers' blobs, its config, its manifest, and the index that it
        was chosen from.

        Raises:
            NotFound, DigestMismatch: the manifest or the index is not there, or damaged.
        """
        manifest = Digest(record.manifest_digest)
        data = self._content.read_verified(manifest)
        parsed = parse_manifest(data)
        blobs = {layer.digest: layer.size for layer in parsed.layers}
        blobs[identity] = parsed.config.size
        blobs[manifest] = len(data)
        if record.index_digest:
            index = Digest(record.index_digest)
            blobs[index] = self._content.size(index)
        return Parts(blobs, chain)

    # -- Naming -----------------------------------------------------------------------------------

    def register(self, loaded: Loaded, action: str | None) -> tuple[Image, dict[str, Image]]:
        """Name what was put in place: rows, catalog, events (with None: no event).

        Returns the image, and which images had its names before.

        Raises:
            RuntimeFailure, Unavailable: the disk is full; nothing has changed.
        """
        image = self.catalog.by_id(loaded.id)
        record = _record(loaded, image.record if image is not None else None)
        if image is None:
            image = Image(loaded.config, loaded.id, record, size=loaded.size)
        parts = self._parts(image.id, image.chain_id, record)
        with storing(f"mount points of image {short_id(image.id)}"):
            self._snapshots.warm(image.parent)
        previous = self._name(image, record, loaded.references)
        self.collector.loosen(self.needs.put(image.id, parts))
        self.publish()
        if action is not None:
            for name in [reference.familiar for reference in loaded.references] or [image.id]:
                self.tell(action, image, name)
        return image, previous

    def tag(self, reference: Reference, image: Image) -> None:
        """Give an image a further name.

        Raises:
            RuntimeFailure: stage `database`; nothing has changed.
        """
        self.refer([reference], image)
        self.tell("tag", image, reference.familiar)

    def repack(self, image: Image, manifest: Descriptor) -> None:
        """Give an image another manifest: its layers are stored otherwise, and are the same."""
        self._rewrite(
            image,
            manifest_media_type=manifest.media_type,
            manifest_digest=manifest.digest,
            manifest_size=manifest.size,
            index_digest="",
        )
        parts = self._parts(image.id, image.chain_id, image.record)
        self.collector.loosen(self.needs.put(image.id, parts))
        self.publish()

    def pushed(self, image: Image, reference: Reference) -> None:
        """Note that a repository has the image: `reference` names it there by digest."""
        self._name(image, image.record, [reference])

    def refer(self, references: Iterable[Reference], image: Image) -> None:
        """Give an image these names; nobody is told.

        Raises:
            RuntimeFailure: stage `database`; nothing has changed.
        """
        record = msgspec.structs.replace(image.record, tagged_ns=time.time_ns())
        self._name(image, record, list(references))
        self.publish()

    def _name(
        self, image: Image, record: ImageRecord, references: Sequence[Reference]
    ) -> dict[str, Image]:
        """Write an image and names of it in one transaction, then put them into the catalog.

        Returns which images had the names before.
        """

        def write(_: Database) -> None:
            self._rows.put(ImageRow(image.id, image.created_ns, record))
            for reference in references:
                self._rows.refer(str(reference), image.id)
                self._note_source(reference, record)

        with _written(image):
            self._rows.database.write(write)
        image.record = record
        self.catalog.add(image)
        previous = {}
        for reference in references:
            before = self.catalog.refer(reference, image)
            if before is not None:
                previous[reference.familiar] = before
        return previous

    def _note_source(self, reference: Reference, record: ImageRecord) -> None:
        """An image that has a name by digest is in that repository, and so are its layers."""
        if reference.digest:
            manifest = parse_manifest(self._content.read(Digest(record.manifest_digest)))
            self.sources.note({layer.digest for layer in manifest.layers}, reference.repository)

    def untag(self, image: Image, reference: Reference) -> dict[str, str]:
        """Take one name away; say so in Docker's words."""
        with _written(image):
            self._rows.unrefer(str(reference))
        self.catalog.unrefer(reference)
        self.tell("untag", image, image.id)
        return {"Untagged": reference.familiar}

    def delete(self, image: Image) -> list[dict[str, str]]:
        """Delete an image without names, and what only it needed."""
        with _written(image):
            self._rows.delete(image.id)
        self.catalog.remove(image)
        self.tell("delete", image, image.id)
        freed = self.needs.drop(image.id)
        self.let_go_bytes += sum(freed.blobs.values())
        deleted: list[str] = [image.id]
        if freed.chain is not None:
            layers = self._snapshots.unneeded(freed.chain, self.needs.needs_chain)
            deleted += [layer.chain for layer in layers]
            self.let_go_bytes += sum(layer.size for layer in layers)
        self.collector.loosen(freed)
        self.collector.collect()
        return [{"Deleted": digest} for digest in deleted]

    # -- Use --------------------------------------------------------------------------------------

    def use(self, image: Image) -> None:
        """Note that an image was used now: a container was made from it."""
        now_ns = time.time_ns()
        if self.catalog.by_id(image.id) is not image:
            return  # the machine's own root
        if now_ns - image.record.used_ns > _USE_STEP_NS:
            try:
                self._rewrite(image, used_ns=now_ns)
            except (
                RuntimeFailure
            ) as failure:  # it goes a little earlier when the budget is exceeded
                log.error("images: the time of the last use is not kept: %s", failure.message)

    def pin(self, image: Image, pinned: bool) -> None:
        """Say whether the image stays when the disk budget is exceeded."""
        if image.record.pinned is not pinned:
            self._rewrite(image, pinned=pinned)

    def _rewrite(self, image: Image, **changes: object) -> None:
        record = msgspec.structs.replace(image.record, **changes)
        with _written(image):
            self._rows.put(ImageRow(image.id, image.created_ns, record))
        image.record = record

    def hold(
        self, what: str = "an operation", images: Iterable[Image] | None = None
    ) -> AbstractContextManager[Hold]:
        """Keep what an operation makes and looks at, or the `images` that it reads, until it ends;
        see `Collector.hold`."""
        return self.collector.hold(what, images)

    # -- Telling ----------------------------------------------------------------------------------

    def publish(self) -> None:
        """Bring the layout's index.json up to date, for tools that read the store.

        The rows are what counts: where the disk is full, index.json stays as it is until the next
        change.
        """
        selections = [saving.Selection(image, image.references) for image in self.catalog]
        try:
            self._content.write_index(saving.layout_index(selections))
        except OSError as error:
            log.error("images: index.json is not up to date: %s", error.strerror)

    def tell(self, action: str, image: Image, name: str) -> None:
        """Emit an event; its attributes are the labels, and the name it happened under."""
        self._emit(action, image.id, {**(image.config.labels or {}), "name": name})

    def tell_pulled(self, reference: Reference, image: Image) -> None:
        """Emit the event of a pull, which is about the name that was asked for, as dockerd's is."""
        attributes = {**(image.config.labels or {}), "name": reference.familiar_name}
        self._emit("pull", reference.familiar, attributes)

    def tell_pushed(self, reference: Reference, image: Image) -> None:
        """Emit the event of a push; docker names it by the reference, not by the image's ID."""
        attributes = {**(image.config.labels or {}), "name": reference.familiar_name}
        self._emit("push", reference.familiar, attributes)

    def flush(self) -> None:
        """Have what was added written to the disk soon, without anybody waiting for it."""
        flushing = asyncio.get_running_loop().run_in_executor(None, self._content.sync)
        flushing.add_done_callback(_report_flush)


@contextmanager
def _written(image: Image) -> Iterator[None]:
    """Turn what SQLite says of a full or broken disk into a failure with a name."""
    try:
        yield
    except sqlite3.Error as error:
        name = image.references[0].familiar if image.references else image.id
        raise RuntimeFailure(
            "database",
            f"image {name} cannot be written to the database: {error}",
            hint="is the disk full?",
        ) from error


def _record(loaded: Loaded, before: ImageRecord | None) -> ImageRecord:
    """The record of an image that is registered, or registered again: what was known of it before
    and is not said now stays."""
    now_ns = time.time_ns()
    record = ImageRecord(
        manifest_media_type=loaded.manifest.media_type,
        manifest_digest=loaded.manifest.digest,
        manifest_size=loaded.manifest.size,
        tagged_ns=now_ns if loaded.references else 0,
        used_ns=now_ns,
        parent=loaded.parent,
        index_digest=loaded.index_digest,
    )
    if before is None:
        return record
    same_manifest = record.manifest_digest == before.manifest_digest
    return msgspec.structs.replace(
        record,
        parent=record.parent or before.parent,
        index_digest=record.index_digest or (before.index_digest if same_manifest else ""),
        pinned=before.pinned,
    )


def _report_flush(flushing: asyncio.Future[None]) -> None:
    if not flushing.cancelled() and (error := flushing.exception()) is not None:
        log.error("images: what was added may not be on the disk: %s", error)
