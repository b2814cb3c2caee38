"""Pulling: tag → manifest for our platform → config → layers → rows.

The config comes first: it names the layers' trees, so that what is there already is not fetched.
Blobs become the store's, and the image gets its rows, in one go at the end. Nothing of a pull that
fails or is cancelled has a name; the bytes it had fetched stay for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from sampan.content.store import ContentStore, DigestMismatch
from sampan.errors import InvalidArgument, NotFound, SampanError, Unsupported
from sampan.images import progress as messages
from sampan.images.archives.load import Loaded
from sampan.images.catalog import Catalog
from sampan.images.disk import storing
from sampan.images.distribution.client import Registries
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.interface import FetchedManifest, Repository
from sampan.images.host import refuse_reserved
from sampan.images.image import Image
from sampan.images.progress import Progress
from sampan.images.pulling.transfers import Downloads, Transfer
from sampan.images.pulling.unpacking import LayerPlan, Unpacker
from sampan.images.register import Register
from sampan.images.shared import AnyJob
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor, Platform, local_platform, matches
from sampan.oci.digest import BadDigest, ChainID, Digest, digest_of, parse_digest, short_id
from sampan.oci.image_config import parse_image_config
from sampan.oci.index import parse_index
from sampan.oci.manifest import Manifest, parse_manifest
from sampan.oci.platforms import select_platform
from sampan.oci.reference import Reference, is_tag, parse_reference
from sampan.snapshots.overlay import Snapshotter

Result = TypeVar("Result")

_INDEX_DEPTH_MAX = 3
_CONFIG_MAX = 8 << 20
_LAYERS_MAX = 500
"""More than overlayfs stacks (OVL_MAX_STACK)."""

_PLUGIN = "application/vnd.docker.plugin.v1+json"
_CONFIGS_OF_OLD = frozenset(("", "application/octet-stream", "application/json", "text/html"))
"""What broken registries say of configs; dockerd takes them, too."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a pull is asked for; `platform` None: this machine's."""

    credentials: Credentials | None
    platform: Platform | None
    progress: Progress


class Puller:
    """The pulls of one engine. On the event loop."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        content: ContentStore,
        snapshots: Snapshotter,
        register: Register,
        registries: Registries,
    ) -> None:
        self._catalog = catalog
        self._content = content
        self._snapshots = snapshots
        self._register = register
        self._registries = registries
        self.downloads = Downloads(content, lambda: registries.settings)
        self.unpacker = Unpacker(snapshots, self.downloads, lambda: registries.settings)

    async def pull(self, reference: Reference, request: Request) -> list[Image]:
        """Fetch what a tag or digest means, or without either all tags of the repository.

        Raises:
            SampanError: the registry's refusal or a failure on the way; see `client.Repository`.
            BadLayer, BadArchive, DigestMismatch: what came is not what was promised.
        """
        refuse_reserved(reference)
        repository = self._registries.repository(reference, request.credentials)
        wanted = [reference]
        if not reference.tag and not reference.digest:
            name = (reference.domain, reference.path)
            wanted = [Reference(*name, tag) for tag in await repository.tags() if is_tag(tag)]
        images = []
        newer = False
        with self._register.hold(f"pull {reference.familiar}"):
            for item in wanted:
                image, is_newer = await self._pull_one(repository, item, request)
                images.append(image)
                newer = newer or is_newer
            if newer:
                self._register.flush()
        self._conclude(reference, images, request, newer=newer)
        return images

    def _conclude(
        self, reference: Reference, images: Sequence[Image], request: Request, *, newer: bool
    ) -> None:
        outcome = "Downloaded newer image" if newer else "Image is up to date"
        request.progress(messages.status(f"Status: {outcome} for {reference.familiar}"))
        if images:
            self._register.tell_pulled(reference, images[0])
        wanted = request.platform
        if wanted is None:
            return
        for image in images:
            actual = _platform_of(image)
            if not matches(actual, wanted):
                request.progress(
                    messages.status(
                        f"WARNING: image with reference {reference.familiar_name} was found but "
                        f"does not match the specified platform: wanted {wanted}, actual: {actual}"
                    )
                )

    # -- One reference ----------------------------------------------------------------------------

    async def _pull_one(
        self, repository: Repository, reference: Reference, request: Request
    ) -> tuple[Image, bool]:
        """The image of a tag or digest, and whether the name is new or means another one now."""
        wanted = reference.digest or reference.tag or ""
        lead = messages.status(f"Pulling from {reference.path}", reference.tag or str(reference))
        before = self._catalog.by_reference(reference)
        if before is not None:
            # One small request tells whether anything has changed.
            found = await repository.resolve(wanted)
            image = self._known(reference, found.digest, found.media_type, request)
            if image is before:
                request.progress(lead)
                request.progress(messages.status(f"Digest: {found.digest}"))
                return image, False
        top = await repository.manifest(wanted)
        request.progress(lead)
        digested = Reference(reference.domain, reference.path, digest=top.digest)
        names = tuple({reference: None, digested: None})
        image = self._known(reference, top.digest, top.media_type, request)
        if image is None:
            image = await self._fetch(repository, top, names, request)
        request.progress(messages.status(f"Digest: {top.digest}"))
        self._register.refer(names, image)
        return image, image is not before

    def _known(
        self, reference: Reference, digest: Digest, media_type: str, request: Request
    ) -> Image | None:
        """The image that was pulled as this digest before, if it is the one for the platform."""
        image = self._catalog.by_reference(
            Reference(reference.domain, reference.path, digest=digest)
        )
        if image is None or media_type not in media_types.INDEXES:
            return image
        wanted = request.platform or local_platform()
        return image if matches(_platform_of(image), wanted) else None

    async def _fetch(
        self,
        repository: Repository,
        top: FetchedManifest,
        names: tuple[Reference, ...],
        request: Request,
    ) -> Image:
        """Bring an image here and give it its names, unless it is here in other blobs."""
        chosen = await self._choose(repository, top, request.platform)
        manifest = _checked(parse_manifest(chosen.data))
        image = self._catalog.by_id(manifest.config.digest)
        if image is not None:
            return image
        raw = await self._config(repository, manifest.config)
        plans = _plans(manifest, raw)
        async with AsyncExitStack() as held:
            transfers = await self._layers(held, repository, plans, request.progress)
            with storing(f"image {short_id(manifest.config.digest)}"):
                self._content.put(raw, manifest.config.digest)
                self._content.put(chosen.data, chosen.digest)
                index = self._content.put(top.data, top.digest) if chosen is not top else ""
                for transfer in transfers:
                    transfer.commit()
            loaded = Loaded(
                id=manifest.config.digest,
                config=raw,
                manifest=chosen.descriptor,
                size=sum(self._snapshots.layers.get(plan.chain).size for plan in plans),
                references=names,
                index_digest=index,
            )
            image, _ = self._register.register(loaded, None)
        return image

    async def _choose(
        self, repository: Repository, top: FetchedManifest, platform: Platform | None
    ) -> FetchedManifest:
        """The image manifest itself, or the one that an index has for the platform.

        Raises:
            NotFound: the index has none; dockerd's text.
        """
        wanted = platform or local_platform()
        for _ in range(_INDEX_DEPTH_MAX):
            if top.media_type not in media_types.INDEXES:
                return top
            entry = select_platform(parse_index(top.data).manifests, wanted)
            if entry is None:
                raise NotFound(
                    f"no matching manifest for {wanted} in the manifest list entries",
                    hint="--platform chooses another one",
                )
            top = await repository.manifest(entry.digest)
        raise InvalidArgument("image indexes nested too deeply")

    async def _config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """An image's config, verified.

        Raises:
            InvalidArgument: it is larger than 8 MiB, or not what its digest says.
        """
        if self._content.has(descriptor.digest):
            return self._content.read_verified(descriptor.digest)
        if descriptor.size > _CONFIG_MAX:
            raise InvalidArgument(
                f"error pulling image configuration: {descriptor.size} bytes are too many"
            )
        data = await self.downloads.small(repository, descriptor)
        if digest_of(data) != descriptor.digest:
            raise DigestMismatch(f"image config verification failed for digest {descriptor.digest}")
        return data

    # -- Layers -----------------------------------------------------------------------------------

    async def _layers(
        self,
        held: AsyncExitStack,
        repository: Repository,
        plans: Sequence[LayerPlan],
        progress: Progress,
    ) -> list[Transfer]:
        """Have all layers unpacked and their blobs fetched; `held` keeps the downloads."""
        missing = []
        for plan in plans:
            label = short_id(plan.blob.digest)
            if self._is_present(plan):
                progress(messages.step("Already exists", label))
            else:
                progress(messages.step("Pulling fs layer", label))
                missing.append(plan)
        # The largest first: what begins last should not be what takes longest.
        missing.sort(key=lambda plan: -plan.blob.size)
        return await together([self._layer(held, repository, plan, progress) for plan in missing])

    def _is_present(self, plan: LayerPlan) -> bool:
        return self._snapshots.layers.has(plan.chain) and self._content.has(plan.blob.digest)

    async def _layer(
        self, held: AsyncExitStack, repository: Repository, plan: LayerPlan, progress: Progress
    ) -> Transfer:
        """One layer's blob fetched and unpacked, or compared with its tree if that is there."""
        fetching = _done(held, lambda: self.downloads.join(repository, plan.blob, progress))
        unpacking = _done(held, lambda: self.unpacker.join(repository, plan, progress))
        transfer, _ = await together([fetching, unpacking])
        progress(messages.step("Pull complete", short_id(plan.blob.digest)))
        assert isinstance(transfer, Transfer)
        return transfer


def parse_wanted(image: str, tag: str | None) -> Reference:
    """What `fromImage` and `tag` of a pull mean; a digest may stand in place of a tag.

    Raises:
        InvalidArgument: dockerd's texts.
    """
    reference = parse_reference(image.removesuffix(":"))
    if tag:
        name = (reference.domain, reference.path)
        if _is_digest(tag):
            return Reference(*name, digest=Digest(tag))
        if not is_tag(tag):
            raise InvalidArgument("invalid tag format")
        return Reference(*name, tag)
    return reference.without_tag() if reference.digest else reference


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except BadDigest:
        return False
    return True


async def _done(
    held: AsyncExitStack, join: Callable[[], AbstractAsyncContextManager[AnyJob]]
) -> AnyJob:
    """Join a job, wait for its end, and have `held` leave it.

    A job that another pull began may fail for that pull's reasons (its credentials, its registry):
    it is then tried anew with our own.
    """
    while True:
        async with AsyncExitStack() as own:
            job = await own.enter_async_context(join())
            is_ours = job.users == 1
            try:
                await job.wait()
            except SampanError:
                if is_ours:
                    raise
                continue
            held.push_async_exit(own.pop_all())
            return job


async def together(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of coroutines that run at once; the first failure ends the others, and is raised
    when they have let go of everything."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            if not task.cancelling():  # gather has done so when it was cancelled itself
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _checked(manifest: Manifest) -> Manifest:
    """A manifest of an image that can be here.

    Raises:
        InvalidArgument: it is of something else; dockerd's text.
    """
    kind = manifest.config.media_type
    if kind not in media_types.CONFIGS and kind not in _CONFIGS_OF_OLD:
        family = "plugin" if kind == _PLUGIN else "unknown"
        raise InvalidArgument(f'Encountered remote "{kind}"({family}) when fetching')
    if len(manifest.layers) > _LAYERS_MAX:
        raise InvalidArgument(
            f"the image has {len(manifest.layers)} layers, at most {_LAYERS_MAX} can be stacked"
        )
    return manifest


def _plans(manifest: Manifest, raw_config: bytes) -> list[LayerPlan]:
    """What to make of each layer, bottom first.

    Raises:
        InvalidArgument, Unsupported: the config does not fit the manifest, or this machine.
    """
    config = parse_image_config(raw_config)
    if config.os not in ("", "linux"):
        raise Unsupported(
            f'cannot download image with operating system "{config.os}" when requesting "linux"'
        )
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidArgument("layers from manifest don't match image configuration")
    plans = []
    parent: ChainID | None = None
    for blob, diff_id in zip(manifest.layers, diff_ids, strict=True):
        plans.append(LayerPlan(blob, parent, diff_id))
        parent = plans[-1].chain
    return plans


def _platform_of(image: Image) -> Platform:
    return Platform(architecture=image.architecture, os=image.os or "linux", variant=image.variant)
