"""Images: found, listed, loaded, saved, imported, tagged and removed.

The catalog in memory answers reads. A change writes blobs and layers first, then in one
transaction its rows, then the catalog; so whatever a crash cuts short is garbage that nothing
names, and is collected when the service opens. While a load, import or save is under way nothing
is collected: it may be about to name, or still read, what nothing else names.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sampan.content.store import ContentStore
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.images import save as saving
from sampan.images.catalog import Catalog
from sampan.images.filters import select
from sampan.images.flat import import_tree, new_defaults
from sampan.images.host import host_image, refuse_reserved
from sampan.images.image import Image
from sampan.images.load import Loaded, Loader, Progress
from sampan.images.pipe import consume
from sampan.images.removal import Users, check_delete, check_untag, is_single_reference
from sampan.oci.descriptor import Platform, local_platform, parse_platform
from sampan.oci.digest import ChainID, Digest
from sampan.oci.go_time import format_time
from sampan.oci.manifest import parse_manifest
from sampan.oci.reference import Reference, is_tag, parse_reference
from sampan.snapshots.overlay import Snapshotter
from sampan.state.images import ImageRecord, ImageRow, ImageRows

log = logging.getLogger(__name__)

Emit = Callable[[str, str, dict[str, str]], None]
"""Tells of an event: action, image ID or name, attributes."""
InUse = Callable[[str], Users]
"""The containers of an image ID: (container ID, running?)."""
Chunks = AsyncIterator[bytes]


class Images:
    """The images of one engine; its methods run on the engine's loop and thread."""

    def __init__(
        self,
        *,
        content: ContentStore,
        snapshots: Snapshotter,
        rows: ImageRows,
        emit: Emit,
        in_use: InUse,
    ) -> None:
        self._content = content
        self._snapshots = snapshots
        self._rows = rows
        self._emit = emit
        self._in_use = in_use
        self._holds = 0
        self._blobs: dict[str, builtins.list[Digest]] = {}  # by manifest; a manifest never changes
        self.host = host_image()
        self._catalog = Catalog(self.host)
        self._open()

    # -- Reading ----------------------------------------------------------------------------------

    def resolve(self, reference: str) -> Image:
        """The image that a name[:tag], name@digest, ID, ID prefix or `host` means.

        Raises:
            BadReference: the text can be none of these.
            NotFound: `No such image: x:latest`.
        """
        return self._catalog.resolve(reference)

    def list(self, *, all: bool, filters: Mapping[str, Sequence[str]]) -> builtins.list[Image]:
        """The stored images, newest first. There are no intermediate images, so `all` adds none."""
        return [image for image, _ in select(self._catalog, filters, self.resolve)]

    def summaries(
        self, *, all: bool, filters: Mapping[str, Sequence[str]]
    ) -> builtins.list[dict[str, Any]]:
        """`list` in Docker's JSON shape, showing only the references that the filters choose."""
        chosen = select(self._catalog, filters, self.resolve)
        return [image.summary(references) for image, references in chosen]

    def __len__(self) -> int:
        return sum(1 for _ in self._catalog)

    # -- Adding -----------------------------------------------------------------------------------

    async def load(
        self,
        chunks: Chunks,
        *,
        quiet: bool,
        progress: Progress,
        platform: str | None = None,
    ) -> builtins.list[str]:
        """Load a docker-archive or OCI layout from a tar stream, plain or compressed.

        `progress` gets Docker's stream messages, on the loop; with `quiet` only the last ones.
        Returns the loaded references, or the IDs of images without any. Cancelled, it leaves
        nothing.

        Raises:
            InvalidArgument: the archive is damaged, or is none.
        """
        loop = asyncio.get_running_loop()

        def report(message: dict[str, Any]) -> None:
            if not quiet:
                loop.call_soon_threadsafe(progress, message)

        wanted = parse_platform(platform) if platform else None
        loader = Loader(self._content, self._snapshots, report, wanted)
        with self._hold():
            loaded = await consume(chunks, loader.load)
            for item in loaded:
                for reference in item.references:
                    refuse_reserved(reference)
            names: builtins.list[str] = []
            for item in loaded:
                names += self._register(item, "load", progress)
            self._flush()
        return names

    async def import_(
        self,
        chunks: Chunks,
        *,
        reference: str | None,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
    ) -> Image:
        """Make an image of one layer from the tar of a root file system, plain or compressed.

        Raises:
            InvalidArgument: the reference, a change or the archive is bad.
        """
        target = self._target(reference) if reference else None
        chosen = parse_platform(platform) if platform else _plain_platform()
        config = new_defaults(changes)

        def work(read: Callable[[int], bytes]) -> Loaded:
            return import_tree(
                read,
                content=self._content,
                snapshots=self._snapshots,
                config=config,
                message=message or "Imported from -",
                platform=chosen,
                created=format_time(time.time_ns()),
                reference=target,
            )

        with self._hold():
            loaded = await consume(chunks, work)
            self._register(loaded, "import", None)
            self._flush()
        return self.resolve(loaded.id)

    def tag(self, source: str, target: str) -> None:
        """Give an image a further name; it is taken from the image that had it.

        Raises:
            NotFound: there is no image `source`.
            InvalidArgument: `target` is no name:tag, or is reserved.
        """
        image = self.resolve(source)
        if image is self.host:
            raise InvalidArgument("the host image has no layers of its own to be tagged")
        reference = self._target(target)
        self._rows.database.write(lambda _: self._refer(reference, image))
        self._publish()
        self._emit("tag", image.id, self._attributes(image, reference.familiar))

    # -- Saving -----------------------------------------------------------------------------------

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """A tar of these images, which Docker, podman and skopeo load; names are checked at once.

        A repository without a tag means all its tags.

        Raises:
            NotFound: one of them does not exist.
        """
        selections: dict[str, saving.Selection] = {}
        for text in references:
            for image, names in self._selected(text):
                if image is self.host:
                    raise InvalidArgument("the host image has no layers of its own to be saved")
                entry = selections.setdefault(image.id, saving.Selection(image))
                entry.references += [name for name in names if name not in entry.references]
        return self._saving(list(selections.values()))

    # -- Removing ---------------------------------------------------------------------------------

    def remove(
        self, reference: str, *, force: bool = False, prune: bool = True
    ) -> builtins.list[dict[str, str]]:
        """Take a name away from an image and, with its last one, the image; by ID, the image.

        Returns what was done: `{"Untagged": name}`, `{"Deleted": digest}`. Layers that a stopped
        container stands on stay until it is gone. There are no parent images for `prune` to remove.

        Raises:
            NotFound, Conflict: dockerd's texts.
        """
        image = self.resolve(reference)
        if image is self.host:
            raise InvalidArgument("the host image cannot be removed")
        users = self._in_use(image.id)
        if self._catalog.is_id_prefix(image, reference):
            removed = self._by_id(image, users, force=force)
        else:
            removed = self._by_name(image, reference, users, force=force)
        self._publish()
        return removed

    def _by_name(
        self, image: Image, text: str, users: Users, *, force: bool
    ) -> builtins.list[dict[str, str]]:
        if not force:
            check_untag(image, text, users)
        parsed = parse_reference(text)
        named = parsed.without_tag() if parsed.digest else parsed.with_default_tag()
        gone = [named]
        same_repository = [r for r in image.references if r.repository == named.repository]
        if not named.digest and not any(not r.digest and r != named for r in same_repository):
            gone += [r for r in same_repository if r.digest]
        removed = [self._untag(image, item) for item in gone]
        if image.references:
            return removed
        try:
            check_delete(image, users, force=force, referenced=False)
        except Conflict:
            return removed  # the name is gone, the image stays without one: what dockerd does
        return removed + self._delete(image)

    def _by_id(self, image: Image, users: Users, *, force: bool) -> builtins.list[dict[str, str]]:
        single = is_single_reference(image.references)
        check_delete(image, users, force=force, referenced=bool(image.references) and not single)
        removed = [self._untag(image, reference) for reference in list(image.references)]
        return removed + self._delete(image)

    def _untag(self, image: Image, reference: Reference) -> dict[str, str]:
        self._rows.unrefer(str(reference))
        self._catalog.unrefer(reference)
        self._emit("untag", image.id, self._attributes(image, image.id))
        return {"Untagged": reference.familiar}

    def _delete(self, image: Image) -> builtins.list[dict[str, str]]:
        self._rows.delete(image.id)
        self._catalog.remove(image)
        self._emit("delete", image.id, self._attributes(image, image.id))
        deleted: builtins.list[str] = [image.id]
        if image.chain_id:
            deleted += self._snapshots.released(image.chain_id, self._chains())
        self._collect()
        return [{"Deleted": digest} for digest in deleted]

    # -- Inside -----------------------------------------------------------------------------------

    def _open(self) -> None:
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
                self._catalog.add(images[row.id])
        for reference, image_id in self._rows.references():
            self._catalog.refer(parse_reference(reference), images[image_id])
        self._collect()
        self._publish()

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

    def _flush(self) -> None:
        """Have what was added written to the disk soon, without anybody waiting for it."""
        flushing = asyncio.get_running_loop().run_in_executor(None, self._content.sync)
        flushing.add_done_callback(_report_flush)

    def _register(
        self, loaded: Loaded, action: str, progress: Progress | None
    ) -> builtins.list[str]:
        """Name what was put in place: rows, catalog, events, messages."""
        image = self._catalog.by_id(loaded.id)
        record = ImageRecord(
            manifest_media_type=loaded.manifest.media_type,
            manifest_digest=loaded.manifest.digest,
            manifest_size=loaded.manifest.size,
            tagged_ns=time.time_ns() if loaded.references else 0,
        )
        if image is None:
            image = Image(loaded.config, loaded.id, record, size=loaded.size)
        image.record = record
        previous = self._rows.database.write(lambda _: self._add(image, loaded.references))
        self._snapshots.warm(image.parent)
        self._publish()
        names = [reference.familiar for reference in loaded.references]
        for name in names or [image.id]:
            self._emit(action, image.id, self._attributes(image, name))
        if progress is not None:
            _say_loaded(image, names, previous, progress)
        return names or [image.id]

    def _add(self, image: Image, references: Sequence[Reference]) -> dict[str, Image]:
        """Inside a transaction: the image and its names; returns who had the names before."""
        self._rows.put(ImageRow(image.id, image.created_ns, image.record))
        self._catalog.add(image)
        previous = {}
        for reference in references:
            before = self._refer(reference, image)
            if before is not None:
                previous[reference.familiar] = before
        return previous

    def _refer(self, reference: Reference, image: Image) -> Image | None:
        self._rows.refer(str(reference), image.id)
        image.record = ImageRecord(
            manifest_media_type=image.record.manifest_media_type,
            manifest_digest=image.record.manifest_digest,
            manifest_size=image.record.manifest_size,
            tagged_ns=time.time_ns(),
        )
        self._rows.put(ImageRow(image.id, image.created_ns, image.record))
        return self._catalog.refer(reference, image)

    def _target(self, text: str) -> Reference:
        """A name to give: with a tag, and no digest.

        Raises:
            InvalidArgument: Docker's texts.
        """
        reference = parse_reference(text).with_default_tag()
        if reference.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        if not is_tag(reference.tag or ""):
            raise InvalidArgument("invalid tag format")
        refuse_reserved(reference)
        return reference

    def _selected(self, text: str) -> builtins.list[tuple[Image, builtins.list[Reference]]]:
        try:
            reference = parse_reference(text)
        except InvalidArgument:
            return [(self.resolve(text), [])]  # a whole ID
        if not reference.tag and not reference.digest:
            tags = self._catalog.tags_of(reference.repository)
            return [(image, [tag]) for tag, image in tags] or [(self.resolve(text), [])]
        image = self._catalog.by_reference(reference)
        if image is None:
            return [(self.resolve(text), [])]  # `host:latest`, `sha256:<prefix>`, or nothing
        return [(image, [] if reference.digest else [reference])]

    async def _saving(self, selections: Sequence[saving.Selection]) -> AsyncIterator[bytes]:
        with self._hold():
            async for piece in saving.archive(self._content, selections):
                yield piece
        for selection in selections:
            self._emit(
                "save", selection.image.id, self._attributes(selection.image, selection.image.id)
            )

    def _attributes(self, image: Image, name: str) -> dict[str, str]:
        """An event's attributes: the labels, and the name it happened under."""
        return {**(image.config.labels or {}), "name": name}

    def _chains(self) -> builtins.list[ChainID]:
        return [image.chain_id for image in self._catalog if image.chain_id]

    @contextmanager
    def _hold(self) -> Iterator[None]:
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
        for image in self._catalog:
            named.update(self._blobs_of(image))
        for digest in self._content.digests():
            if digest not in named:
                self._content.delete(digest)

    def _blobs_of(self, image: Image) -> builtins.list[Digest]:
        manifest = image.record.manifest_digest
        blobs = self._blobs.get(manifest)
        if blobs is None:
            blobs = self._blobs[manifest] = saving.image_blobs(self._content, image)
        return blobs

    def _publish(self) -> None:
        """Bring the layout's index.json up to date, for tools that read the store."""
        selections = [saving.Selection(image, image.references) for image in self._catalog]
        self._content.write_index(saving.layout_index(selections))


def _report_flush(flushing: asyncio.Future[None]) -> None:
    if not flushing.cancelled() and (error := flushing.exception()) is not None:
        log.error("images: what was added may not be on the disk: %s", error)


def _plain_platform() -> Platform:
    local = local_platform()
    return Platform(architecture=local.architecture, os=local.os, variant=local.variant)


def _say_loaded(
    image: Image, names: Sequence[str], previous: Mapping[str, Image], progress: Progress
) -> None:
    for name in names:
        if name in previous:
            progress(
                {
                    "stream": f"The image {name} already exists, renaming the old one with ID "
                    f"{previous[name].id} to empty string\n"
                }
            )
        progress({"stream": f"Loaded image: {name}\n"})
    if not names:
        progress({"stream": f"Loaded image ID: {image.id}\n"})
