"""Pushing: the blobs of an image into a repository, then its manifest, byte for byte as it is stored.

What is pushed is the one manifest that is stored of an image, also where the tag was pulled through
an index of platforms; dockerd does the same. Nothing names a half-pushed image in the registry: the
manifest goes last.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sampan.content.store import ContentStore
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.images import progress
from sampan.images.catalog import Catalog
from sampan.images.distribution.client import Registries
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Temporary
from sampan.images.host import refuse_reserved
from sampan.images.image import Image
from sampan.images.progress import Progress
from sampan.images.pushing.packing import Packer
from sampan.images.pushing.uploads import ALREADY_THERE, Target, Uploads
from sampan.images.register import Register
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor, Platform, matches, parse_platform
from sampan.oci.digest import DiffID, Digest, digest_of, short_id
from sampan.oci.manifest import in_docker_types, parse_manifest
from sampan.oci.reference import Reference, is_tag, parse_reference

_LATELY_NS = 600 * 10**9
_AUTH_REASONS = ("no basic auth credentials", "unauthorized: ", "denied: ")


class Pusher:
    """The pushes of one engine."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        register: Register,
        content: ContentStore,
        registries: Registries,
    ) -> None:
        self._catalog = catalog
        self._register = register
        self._content = content
        self._registries = registries
        self._packer = Packer(content, register)
        self.uploads = Uploads(
            content=content, sources=register.sources, settings=lambda: registries.settings
        )

    async def push(
        self,
        text: str,
        *,
        tag: str | None,
        credentials: Credentials | None,
        report: Progress,
        platform: str | None = None,
    ) -> None:
        """Push one tag of a repository or, without any in `text` and `tag`, all of them.

        `report` gets docker's messages. Cancelled, it ends what it sends; what the repository got
        until then is found there by the next push.

        Raises:
            InvalidArgument, NotFound: dockerd's texts; there is nothing to push.
            SampanError: the registry's refusal, or what kept failing.
        """
        reference = _chosen(text, tag)
        if platform:
            self._check_platform(reference, parse_platform(platform))
        report(progress.status(f"The push refers to repository [{reference.repository}]"))
        images = self._selected(reference)
        name = Reference(reference.domain, reference.path)
        repository = self._registries.repository(name, credentials, push=True)
        target = Target(repository, name, credentials)
        for named, image in images:
            what = f"push {named.familiar}"
            async with self._packer.packed(image, what, report):
                with self._register.hold(what, images=[image]):
                    plan = self._plan(target, named, image)
                    plan = await self._push(plan, image, what, report)
            report(progress.status(plan.told))
            report(plan.result())
        self._register.tell_pushed(reference, images[0][1])

    def _check_platform(self, reference: Reference, wanted: Platform) -> None:
        for named, image in self._catalog.tags_of(reference.repository):
            if reference.tag in (None, named.tag):
                _check_platform(named, image, wanted)

    def _selected(self, reference: Reference) -> list[tuple[Reference, Image]]:
        """The tags to push, and their images."""
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        tags = self._catalog.tags_of(reference.repository)
        if not tags:
            raise NotFound(
                f"An image does not exist locally with the tag: {reference.familiar_name}"
            )
        if reference.tag is None:
            return sorted(tags, key=lambda item: str(item[0]))
        chosen = [(named, image) for named, image in tags if named.tag == reference.tag]
        if not chosen:
            raise NotFound(f"tag does not exist: {reference.familiar}")
        return chosen

    def _plan(self, target: Target, named: Reference, image: Image) -> _Plan:
        data = self._content.read(Digest(image.record.manifest_digest))
        return _Plan(target, named, image, image.record.manifest_media_type, data)

    async def _push(self, plan: _Plan, image: Image, what: str, report: Progress) -> _Plan:
        """Push one tag; returns what it is in the registry now."""
        for _, label in reversed(plan.layers):
            report(progress.step("Preparing", label))
        if self._seen_lately(plan) and await plan.stands():
            for _, label in reversed(plan.layers):
                report(progress.step(ALREADY_THERE, label))
            return plan
        if not await self._put_blobs(plan, report):
            plan = await self._put_manifest(plan, image, what)
        if self._catalog.by_id(image.id) is image:  # it may have been removed meanwhile
            self._register.pushed(image, plan.by_digest)
        return plan

    async def _put_manifest(self, plan: _Plan, image: Image, what: str) -> _Plan:
        """The manifest into the repository.

        A registry that knows no OCI types refuses it. One that was written here and that nobody
        has seen is then pushed, and kept, in Docker's types.
        """
        try:
            await plan.put()
        except RegistryFailure as refusal:
            own = self._packer.own_manifest(image)
            data = in_docker_types(own) if own is not None else None
            if data is None or refusal.message.startswith(_AUTH_REASONS):
                raise
            other = _Plan(plan.target, plan.named, image, media_types.DOCKER_MANIFEST, data)
            try:
                await other.put()
            except RegistryFailure:
                raise refusal from None  # it was not that
            await self._packer.replace(image, what, other.media_type, data)
            return other
        return plan

    def _seen_lately(self, plan: _Plan) -> bool:
        """Whether the repository had all layers so lately that its word for the manifest is enough.

        Otherwise each is looked for: a registry may have lost some.
        """
        digests = {descriptor.digest for descriptor, _ in plan.layers}
        seen_ns = self._register.sources.seen_ns(digests, plan.target.name.repository)
        return time.time_ns() - seen_ns < _LATELY_NS

    async def _put_blobs(self, plan: _Plan, report: Progress) -> bool:
        """Every blob of an image into the repository; the first failure ends the others.

        Returns whether the tag stands there for this manifest already.
        """

        async def put_layer(descriptor: Descriptor, label: str) -> None:
            if _is_foreign(descriptor):
                report(progress.step("Skipped foreign layer", label))
                return
            outcome = await self.uploads.put(plan.target, descriptor, label, report)
            report(progress.step(outcome, label))

        config = plan.manifest.config
        try:
            async with asyncio.TaskGroup() as group:
                standing = group.create_task(plan.stands())
                for descriptor, label in plan.layers:
                    group.create_task(put_layer(descriptor, label))
                group.create_task(
                    self.uploads.put(plan.target, config, short_id(config.digest), _unsaid)
                )
        except ExceptionGroup as failures:
            raise _in_dockers_words(failures.exceptions[0]) from failures
        return standing.result()


class _Plan:
    """What one tag is in the repository: its manifest, and the layers bottom first with what docker
    calls them."""

    def __init__(
        self, target: Target, named: Reference, image: Image, media_type: str, data: bytes
    ) -> None:
        self.target = target
        self.named = named
        self.tag = named.tag or ""
        self.manifest = parse_manifest(data)
        self.media_type = self.manifest.media_type or media_type
        self.layers = _labelled(self.manifest.layers, image.layers)
        self.by_digest = Reference(target.name.domain, target.name.path, None, digest_of(data))
        self._data = data
        self._was_there = self.by_digest in image.references

    async def put(self) -> None:
        """Write the manifest under the tag."""
        await self.target.repository.put_manifest(self.tag, self.media_type, self._data)

    async def stands(self) -> bool:
        """Whether the tag is this manifest already; asked where it was pushed or pulled before."""
        if not self._was_there:
            return False
        try:
            found = await self.target.repository.resolve(self.tag)
        except (NotFound, RegistryFailure, Temporary):
            return False  # it is sent then, and what is wrong is told by that
        return found.digest == self.by_digest.digest

    @property
    def told(self) -> str:
        """For people, what became of it."""
        return f"{self.tag}: digest: {self.by_digest.digest} size: {len(self._data)}"

    def result(self) -> dict[str, Any]:
        """For programs: what docker's clients read the digest from."""
        result = {"Tag": self.tag, "Digest": self.by_digest.digest, "Size": len(self._data)}
        return {"progressDetail": {}, "aux": result}


def _in_dockers_words(failure: Exception) -> Exception:
    """For a push dockerd says only what is wrong with the credentials, not which request told so."""
    if isinstance(failure, RegistryFailure):
        request, found, reason = failure.message.partition('": ')
        if found and request.startswith(("Head ", "Post ")) and reason.startswith(_AUTH_REASONS):
            return RegistryFailure(reason, hint=failure.hint)
    return failure


def _chosen(text: str, tag: str | None) -> Reference:
    """What to push: `tag` goes before one in the name; without any, the whole repository."""
    reference = parse_reference(text)
    if tag:
        if not is_tag(tag):
            raise InvalidArgument("invalid tag format")
        reference = Reference(reference.domain, reference.path, tag, reference.digest)
    refuse_reserved(reference.with_default_tag())
    return reference


def _labelled(layers: list[Descriptor], diff_ids: list[DiffID]) -> list[tuple[Descriptor, str]]:
    """Each blob once, bottom first, with what docker calls its layer: the diff ID's beginning."""
    if len(layers) != len(diff_ids):
        raise Conflict(
            f"the manifest has {len(layers)} layers and the config {len(diff_ids)}: "
            "this is no image that can be pushed"
        )
    labels: dict[Digest, tuple[Descriptor, str]] = {}
    for descriptor, diff_id in zip(layers, diff_ids, strict=True):
        labels.setdefault(descriptor.digest, (descriptor, short_id(diff_id)))
    return list(labels.values())


def _is_foreign(descriptor: Descriptor) -> bool:
    """Whether a layer is to be had from its URLs only, and not to be distributed."""
    kind = descriptor.media_type
    return bool(descriptor.urls) and ("nondistributable" in kind or "foreign" in kind)


def _check_platform(named: Reference, image: Image, wanted: Platform) -> None:
    offered = Platform(architecture=image.architecture, os=image.os, variant=image.variant)
    if not matches(offered, wanted):
        raise NotFound(
            f"image with reference {named.familiar} was found but does not provide "
            f"the specified platform ({wanted})"
        )


def _unsaid(_: dict[str, Any]) -> None:
    """Docker shows no bar of a config."""
