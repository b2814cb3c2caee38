"""Images: found, listed, loaded, saved, imported, tagged and removed.

The catalog in memory answers reads. A change writes blobs and layers first, then in one
transaction its rows, then the catalog; so whatever a crash cuts short is garbage that nothing
names, and is collected when the service opens. While a load, import or save is under way nothing
is collected: it may be about to name, or still read, what nothing else names.
"""

from __future__ import annotations

import asyncio
import builtins
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from sampan.content.store import ContentStore
from sampan.errors import InvalidArgument
from sampan.images.archives import save as saving
from sampan.images.archives.download import opened
from sampan.images.archives.load import Loaded, Loader, Progress
from sampan.images.catalog import Catalog
from sampan.images.distribution.client import Registries
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.settings import RegistrySettings
from sampan.images.distribution.transport import Transport
from sampan.images.history import history
from sampan.images.host import host_image, refuse_reserved
from sampan.images.image import Image
from sampan.images.keeping.upkeep import Upkeep
from sampan.images.listing import NOTHING_EXTRA, Listing, Wanted
from sampan.images.making.commit import Commit, commit_layer
from sampan.images.making.flat import import_tree, new_defaults
from sampan.images.pipe import consume, in_thread
from sampan.images.pulling.pull import Puller, Request, parse_wanted
from sampan.images.pushing.push import Pusher
from sampan.images.register import Emit, Register
from sampan.images.removal import InUse
from sampan.images.removing import Remover
from sampan.oci.descriptor import Platform, local_platform, parse_platform
from sampan.oci.go_time import format_time
from sampan.oci.reference import Reference, is_tag, parse_reference
from sampan.snapshots.overlay import Snapshotter
from sampan.state.images import ImageRows

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
        registries: Registries | None = None,
    ) -> None:
        self._content = content
        self._snapshots = snapshots
        self._in_use = in_use
        self.registries = registries or Registries(RegistrySettings)
        self.host = host_image()
        self._catalog = Catalog(self.host)
        self._register = Register(
            catalog=self._catalog, content=content, snapshots=snapshots, rows=rows, emit=emit
        )
        self._register.open()
        self._puller = Puller(
            catalog=self._catalog,
            content=content,
            snapshots=snapshots,
            register=self._register,
            registries=self.registries,
        )
        self._pusher = Pusher(
            catalog=self._catalog,
            register=self._register,
            content=content,
            registries=self.registries,
        )
        self.upkeep = Upkeep(
            catalog=self._catalog,
            register=self._register,
            content=content,
            snapshots=snapshots,
            in_use=in_use,
        )
        self._remover = Remover(self._catalog, self._register, in_use)
        self._listing = Listing(
            catalog=self._catalog,
            content=content,
            layers=snapshots.layers,
            space=self.upkeep.space,
            in_use=in_use,
        )

    # -- Reading ----------------------------------------------------------------------------------

    def resolve(self, reference: str) -> Image:
        """The image that a name[:tag], name@digest, ID, ID prefix or `host` means.

        Raises:
            BadReference: the text can be none of these.
            NotFound: `No such image: x:latest`.
        """
        return self._catalog.resolve(reference)

    def list(self, *, all: bool, filters: Mapping[str, Sequence[str]]) -> builtins.list[Image]:
        """The stored images, newest first; with `all` those that others were committed on, too."""
        return [image for image, _ in self._listing.chosen(all=all, filters=filters)]

    def summaries(
        self,
        *,
        all: bool,
        filters: Mapping[str, Sequence[str]],
        wanted: Wanted = NOTHING_EXTRA,
    ) -> builtins.list[dict[str, Any]]:
        """`list` in Docker's JSON shape, showing only the references that the filters choose."""
        return self._listing.summaries(all=all, filters=filters, wanted=wanted)

    def inspect(
        self, reference: str, *, manifests: bool = False, platform: str | None = None
    ) -> dict[str, Any]:
        """Docker's `ImageInspect`, of the image of a platform if one is asked for.

        Raises:
            BadReference, NotFound: as `resolve`; or it is not there for that platform.
        """
        return self._listing.inspect(self.resolve_for(reference, platform), manifests=manifests)

    def history(
        self, reference: str, *, platform: str | None = None
    ) -> builtins.list[dict[str, Any]]:
        """How an image came about; see `history.history`.

        Raises:
            BadReference, NotFound: as `inspect`.
        """
        layers = self._snapshots.layers
        image = self.resolve_for(reference, platform)
        return history(image, self._catalog.by_id, lambda chain: layers.get(chain).size)

    def resolve_for(self, reference: str, platform: str | None) -> Image:
        """The image that a text means on a platform (None: whatever it is of).

        Raises:
            BadReference, NotFound: as `resolve`; or it is not there for that platform.
            InvalidArgument: the platform is none.
        """
        image = self.resolve(reference)
        if not platform:
            return image
        return self._listing.for_platform(image, reference, parse_platform(platform))

    def use(self, image: Image) -> None:
        """Note that a container was made from an image now."""
        self._register.use(image)

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
        with self._register.hold("load"):
            loaded = await consume(chunks, loader.load)
            for item in loaded:
                for reference in item.references:
                    refuse_reserved(reference)
            names: builtins.list[str] = []
            for item in loaded:
                image, previous = self._register.register(item, None)
                self._register.tell("load", image, image.id)
                names += _say_loaded(image, item.references, previous, progress)
            self._register.flush()
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
        target = self.target(reference) if reference else None
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

        with self._register.hold("import"):
            loaded = await consume(chunks, work)
            image, _ = self._register.register(loaded, None)
            for name in loaded.references:
                self._register.tell("tag", image, name.familiar)
            self._register.tell("import", image, image.id)
            self._register.flush()
        return image

    async def import_url(
        self,
        url: str,
        *,
        reference: str | None,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
        progress: Progress,
    ) -> Image:
        """`import_` of what is behind a URL; `progress` gets Docker's stream messages, on the loop.

        Raises:
            InvalidArgument: as `import_`, or it is no URL of http or https.
            SampanError: what the server or the network refused.
        """
        if reference:
            self.target(reference)
        new_defaults(changes)
        transport = Transport(lambda: self.registries.settings)
        try:
            async with opened(url, transport) as archive:
                progress({"status": f"Downloading from {archive.url}"})
                image = await self.import_(
                    archive.chunks(progress),
                    reference=reference,
                    changes=changes,
                    message=message or f"Imported from {archive.url}",
                    platform=platform,
                )
        finally:
            await transport.close()
        progress({"status": image.id})
        return image

    async def commit(self, pieces: Iterator[bytes], parent: Image, commit: Commit) -> Image:
        """Make an image of `parent` and a layer whose plain tar comes in pieces, read in a thread.

        Cancelled, it leaves nothing.

        Raises:
            NotFound: the parent's content is gone.
            InvalidArgument: the layer cannot be laid out.
        """
        stop = threading.Event()

        def work() -> Loaded:
            return commit_layer(
                pieces, parent, commit, stop, content=self._content, snapshots=self._snapshots
            )

        with self._register.hold("commit"):
            loaded = await in_thread(work, stop)
            image, _ = self._register.register(loaded, None)
            for reference in loaded.references:
                self._register.tell("tag", image, reference.familiar)
            self._register.flush()
        return image

    async def pull(
        self,
        reference: str,
        *,
        tag: str | None,
        platform: str | None,
        credentials: Credentials | None,
        progress: Progress,
        all_tags: bool = False,
    ) -> builtins.list[Image]:
        """Fetch an image, or with `all_tags` and neither tag nor digest all of a repository.

        `tag` may be a digest. `progress` gets Docker's stream messages, on the loop. Cancelled, it
        leaves what it had fetched for the next attempt.

        Raises:
            InvalidArgument: the reference or the platform is bad.
            SampanError: what the registry or the disk refused; see `Puller.pull`.
        """
        wanted = parse_wanted(reference, tag)
        chosen = parse_platform(platform) if platform else None
        return await self._puller.pull(
            wanted if all_tags else wanted.with_default_tag(),
            Request(credentials=credentials, platform=chosen, progress=progress),
        )

    def tag(self, source: str, target: str) -> None:
        """Give an image a further name; it is taken from the image that had it.

        Raises:
            NotFound: there is no image `source`.
            InvalidArgument: `target` is no name:tag, or is reserved.
        """
        image = self.resolve(source)
        if image is self.host:
            raise InvalidArgument("the host image has no layers of its own to be tagged")
        self._register.tag(self.target(target), image)

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

    # -- Pushing ----------------------------------------------------------------------------------

    async def push(
        self,
        reference: str,
        *,
        tag: str | None,
        credentials: Credentials | None,
        progress: Progress,
        platform: str | None = None,
    ) -> None:
        """Push an image to the registry of its name; see `Pusher.push`."""
        await self._pusher.push(
            reference, tag=tag, credentials=credentials, report=progress, platform=platform
        )

    # -- Removing ---------------------------------------------------------------------------------

    def remove(
        self, reference: str, *, force: bool = False, prune: bool = True
    ) -> builtins.list[dict[str, str]]:
        """Take a name away from an image and, with its last one, the image; by ID, the image.

        Returns what was done: `{"Untagged": name}`, `{"Deleted": digest}`. Layers that a stopped
        container stands on stay until it is gone.

        Raises:
            NotFound, Conflict: dockerd's texts.
        """
        image = self.resolve(reference)
        if image is self.host:
            raise InvalidArgument("the host image cannot be removed")
        return self._remover.remove(image, reference, force=force, prune=prune)

    # -- Inside -----------------------------------------------------------------------------------

    def target(self, text: str) -> Reference:
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
        with self._register.hold("save", [selection.image for selection in selections]):
            async for piece in saving.archive(self._content, selections):
                yield piece
        for selection in selections:
            self._register.tell("save", selection.image, selection.image.id)


def _plain_platform() -> Platform:
    local = local_platform()
    return Platform(architecture=local.architecture, os=local.os, variant=local.variant)


def _say_loaded(
    image: Image,
    references: Sequence[Reference],
    previous: Mapping[str, Image],
    progress: Progress,
) -> builtins.list[str]:
    """Docker's words for one loaded image; returns what it is called."""
    names = [reference.familiar for reference in references]
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
    return names or [image.id]
