"""What is told of images: the list, one of them, and the platforms that one stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from sampan.content.store import ContentStore
from sampan.errors import InvalidArgument, NotFound
from sampan.images.catalog import Catalog
from sampan.images.filters import select
from sampan.images.image import Image
from sampan.images.keeping.space import Space
from sampan.images.removal import InUse
from sampan.oci.descriptor import Descriptor, Platform, matches
from sampan.oci.digest import ChainID, Digest
from sampan.oci.index import is_attestation, parse_index
from sampan.oci.manifest import parse_manifest
from sampan.snapshots.layers import Layers

_ATTESTED = "vnd.docker.reference.digest"


class Wanted(NamedTuple):
    """What of the list costs extra: the bytes that images share, and their manifests."""

    shared_size: bool = False
    manifests: bool = False


NOTHING_EXTRA = Wanted()


class Listing:
    """The images of one engine, as Docker shows them."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        content: ContentStore,
        layers: Layers,
        space: Space,
        in_use: InUse,
    ) -> None:
        self._catalog = catalog
        self._content = content
        self._layers = layers
        self._space = space
        self._in_use = in_use

    def chosen(self, *, all: bool, filters: Mapping[str, Sequence[str]]) -> list[Any]:
        """The images that pass the filters, newest first, each with the references to show.

        Without `all` those without a name that others were committed on are left out.
        """
        parents = self.parents()
        return [
            (image, references)
            for image, references in select(self._catalog, filters, self._catalog.resolve)
            if image.references or image.id not in parents or (all and "dangling" not in filters)
        ]

    def parents(self) -> frozenset[str]:
        """The images that others were committed on."""
        return frozenset(image.record.parent for image in self._catalog)

    def summaries(
        self, *, all: bool, filters: Mapping[str, Sequence[str]], wanted: Wanted = NOTHING_EXTRA
    ) -> list[dict[str, Any]]:
        """Docker's `ImageSummary` of each, showing only the references that the filters choose."""
        uses = self._space.layer_uses() if wanted.shared_size else None
        found = []
        for image, references in self.chosen(all=all, filters=filters):
            summary = image.summary(references)
            summary["ParentId"] = self._parent(image)
            if uses is not None:
                summary["SharedSize"] = self._shared_bytes(image, uses)
            if wanted.manifests:
                summary["Manifests"] = self.manifests(image)
            found.append(summary)
        return found

    def inspect(self, image: Image, *, manifests: bool = False) -> dict[str, Any]:
        """Docker's `ImageInspect`."""
        document = image.inspect()
        document["Parent"] = self._parent(image)
        document["GraphDriver"] = {"Name": "overlay2", "Data": self._directories(image)}
        target = self._target(image)
        if target is not None:
            document["Descriptor"] = msgspec.to_builtins(target)
        if manifests:
            document["Manifests"] = self.manifests(image)
        return document

    def manifests(self, image: Image) -> list[dict[str, Any]]:
        """Docker's `ImageManifestSummary` of each platform that the image's name stands for.

        What the registry has and this machine has not is there, too, and not `Available`.
        """
        own = Digest(image.record.manifest_digest)
        entries = self._index_entries(image)
        if all(entry.digest != own for entry in entries):
            entries = [self._own_descriptor(image), *entries] if own else []
        stored = {other.record.manifest_digest: other for other in self._catalog}
        return [self._manifest(entry, stored.get(entry.digest)) for entry in entries]

    def for_platform(self, image: Image, named: str, wanted: Platform) -> Image:
        """The image that `named`, which is `image`, stands for on a platform.

        Raises:
            NotFound: this machine does not have that one.
        """
        if matches(_platform(image), wanted):
            return image
        stored = {other.record.manifest_digest: other for other in self._catalog}
        for entry in self._index_entries(image):
            fits = entry.platform is not None and matches(entry.platform, wanted)
            if fits and (other := stored.get(entry.digest)) is not None:
                return other
        raise NotFound(
            f"image with reference {named} was found but does not provide the specified platform "
            f"({wanted})"
        )

    # -- Inside -----------------------------------------------------------------------------------

    def _parent(self, image: Image) -> str:
        parent = image.record.parent
        return parent if self._catalog.by_id(parent) is not None else ""

    def _shared_bytes(self, image: Image, uses: Counter[ChainID]) -> int:
        stack = self._space.stack(image.chain_id)
        return sum(layer.size for layer in stack if uses[layer.chain] > 1)

    def _directories(self, image: Image) -> dict[str, str]:
        """Where the layers are; nothing is mounted at `MergedDir`, as with dockerd."""
        trees = [self._layers.tree(layer.chain) for layer in self._space.stack(image.chain_id)]
        if not trees:
            return {}
        top = trees[0].rpartition("/")[0]
        lower = {"LowerDir": ":".join(trees[1:])} if trees[1:] else {}
        return {
            **lower,
            "MergedDir": f"{top}/merged",
            "UpperDir": trees[0],
            "WorkDir": f"{top}/work",
        }

    def _target(self, image: Image) -> Descriptor | None:
        """What the image's names mean in a registry: the index it was chosen from, or its manifest."""
        index = image.record.index_digest
        if not index:
            return self._own_descriptor(image) if image.record.manifest_digest else None
        data = self._content.read(Digest(index))
        media_type = parse_index(data).media_type
        return Descriptor(media_type=media_type, digest=Digest(index), size=len(data))

    def _own_descriptor(self, image: Image) -> Descriptor:
        record = image.record
        return Descriptor(
            media_type=record.manifest_media_type,
            digest=Digest(record.manifest_digest),
            size=record.manifest_size,
            platform=_platform(image),
        )

    def _index_entries(self, image: Image) -> list[Descriptor]:
        index = image.record.index_digest
        if not index:
            return []
        try:
            return parse_index(self._content.read(Digest(index))).manifests
        except (NotFound, InvalidArgument):
            return []  # damaged meanwhile: what is known of the image itself is still right

    def _manifest(self, entry: Descriptor, image: Image | None) -> dict[str, Any]:
        content = self._content_bytes(image) if image is not None else 0
        unpacked = image.size if image is not None else 0
        summary: dict[str, Any] = {
            "ID": entry.digest,
            "Descriptor": msgspec.to_builtins(entry),
            "Available": image is not None,
            "Size": {"Content": content, "Total": content + unpacked},
            "Kind": "image",
        }
        if is_attestation(entry):
            summary["Kind"] = "attestation"
            summary["AttestationData"] = {"For": (entry.annotations or {}).get(_ATTESTED, "")}
            return summary
        platform = entry.platform or (_platform(image) if image is not None else None)
        users: Iterable[tuple[str, bool]] = self._in_use(image.id) if image is not None else ()
        summary["ImageData"] = {
            "Platform": msgspec.to_builtins(platform) if platform is not None else {},
            "Containers": [identity for identity, _ in users],
            "Size": {"Unpacked": unpacked},
        }
        return summary

    def _content_bytes(self, image: Image) -> int:
        """The bytes of an image's blobs: manifest, config, layers."""
        data = self._content.read(Digest(image.record.manifest_digest))
        manifest = parse_manifest(data)
        return len(data) + manifest.config.size + sum(layer.size for layer in manifest.layers)


def _platform(image: Image) -> Platform:
    return Platform(
        architecture=image.architecture,
        os=image.os,
        variant=image.variant,
        os_version=image.os_version,
    )
