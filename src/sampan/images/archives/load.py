"""Loading archives: what `docker save`, `podman save` and `skopeo` write, and OCI layouts in a tar.

Two formats, told apart by their index: `manifest.json` (docker-archive; Docker ≥ 25 writes it
beside an OCI layout) and `index.json` (OCI layout).

Source: OCI image-spec, image-layout.md; moby image/spec/v1.2 "Combined Image JSON + Filesystem
Changeset Format".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sampan.content.compression import compression_of
from sampan.content.store import ContentStore
from sampan.errors import InvalidArgument, Unsupported
from sampan.images.archives.early import EarlyLayers
from sampan.images.archives.staging import Staging
from sampan.images.disk import storing
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor, Platform, local_platform
from sampan.oci.digest import (
    ChainID,
    DiffID,
    Digest,
    chain_id,
    parse_digest,
)
from sampan.oci.documents import decoded
from sampan.oci.image_config import parse_image_config
from sampan.oci.index import (
    CONTAINERD_NAME,
    INDEX_FILE,
    REF_NAME,
    Index,
    parse_index,
)
from sampan.oci.manifest import Manifest, encode_manifest, parse_manifest
from sampan.oci.platforms import select_platform
from sampan.oci.reference import BadReference, Reference, parse_reference
from sampan.oci.tar import Read
from sampan.snapshots.overlay import Snapshotter

DOCKER_MANIFEST_FILE = "manifest.json"
_INDEX_DEPTH_MAX = 4

Progress = Callable[[dict[str, Any]], None]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """An image whose blobs and layers are in place; it has no rows yet.

    `parent` is the image it was committed on; `index_digest` the stored index that the manifest was
    chosen from.
    """

    id: Digest
    config: bytes
    manifest: Descriptor
    size: int
    references: tuple[Reference, ...]
    parent: str = ""
    index_digest: str = ""


class _DockerItem(msgspec.Struct, kw_only=True, rename="pascal"):
    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


_docker_items = msgspec.json.Decoder(list[_DockerItem])


class Loader:
    """One load: reads an archive and puts its blobs and layers in place. Blocks; runs in a thread.

    `progress` is called from that thread.
    """

    def __init__(
        self,
        content: ContentStore,
        snapshots: Snapshotter,
        progress: Progress,
        platform: Platform | None = None,
    ) -> None:
        self._content = content
        self._snapshots = snapshots
        self._platform = platform or local_platform()
        self._early = EarlyLayers(content, snapshots.layers, progress)
        self._staging = Staging(content, self._early.offer)

    def load(self, read: Read) -> list[Loaded]:
        """Read an archive to its end.

        Raises:
            InvalidArgument: it is no image archive, or what it says of itself is not so.
        """
        with self._early:
            self._staging.read_archive(read)
            return self._images()

    def _images(self) -> list[Loaded]:
        if self._staging.has(DOCKER_MANIFEST_FILE):
            return self._docker_archive()
        if self._staging.has(INDEX_FILE):
            return self._layout()
        raise InvalidArgument(
            "invalid archive: does not contain a manifest.json or an index.json",
            hint="`import` takes the tar of a root file system",
        )

    # -- docker-archive ---------------------------------------------------------------------------

    def _docker_archive(self) -> list[Loaded]:
        items = decoded(_docker_items, self._staging.read(DOCKER_MANIFEST_FILE), "manifest.json")
        originals = self._original_manifests()
        return [self._docker_item(item, originals) for item in items]

    def _docker_item(self, item: _DockerItem, originals: dict[Digest, Descriptor]) -> Loaded:
        config_digest = self._staging.digest(item.config)
        raw = self._content.read(config_digest)
        blobs = [self._staging.digest(path) for path in item.layers or ()]
        size = self._lay_out(raw, blobs)
        manifest = originals.get(config_digest)
        if manifest is None:
            manifest = self._new_manifest(config_digest, len(raw), blobs)
        return Loaded(
            id=config_digest,
            config=raw,
            manifest=manifest,
            size=size,
            references=tuple(_tagged(text) for text in item.repo_tags or ()),
        )

    def _original_manifests(self) -> dict[Digest, Descriptor]:
        """The manifests that an OCI layout beside the manifest.json has, by config digest."""
        if not self._staging.has(INDEX_FILE):
            return {}
        found = {}
        for descriptor in self._entries(parse_index(self._staging.read(INDEX_FILE))):
            if descriptor.media_type in media_types.MANIFESTS and self._content.has(
                descriptor.digest
            ):
                manifest = parse_manifest(self._content.read(descriptor.digest))
                found[manifest.config.digest] = descriptor
        return found

    def _new_manifest(
        self, config: Digest, config_size: int, blobs: Sequence[Digest]
    ) -> Descriptor:
        layers = [
            Descriptor(
                media_type=media_types.LAYER_BY_COMPRESSION.get(
                    self._compression(blob), media_types.OCI_LAYER
                ),
                digest=blob,
                size=self._content.size(blob),
            )
            for blob in blobs
        ]
        config_descriptor = Descriptor(
            media_type=media_types.OCI_CONFIG, digest=config, size=config_size
        )
        data = encode_manifest(config_descriptor, layers)
        with storing("the image's manifest"):
            digest = self._content.put(data)
        return Descriptor(media_type=media_types.OCI_MANIFEST, digest=digest, size=len(data))

    # -- OCI layout -------------------------------------------------------------------------------

    def _layout(self) -> list[Loaded]:
        loaded = []
        for entry in parse_index(self._staging.read(INDEX_FILE)).manifests:
            manifest = self._image_manifest(entry)
            if manifest is not None:
                loaded.append(self._layout_image(manifest, _layout_references(entry)))
        if not loaded:
            raise InvalidArgument(f"the archive has no image for platform {self._platform}")
        return loaded

    def _layout_image(self, entry: Descriptor, references: tuple[Reference, ...]) -> Loaded:
        manifest = self._manifest(entry)
        raw = self._content.read(manifest.config.digest)
        size = self._lay_out(raw, [layer.digest for layer in manifest.layers])
        descriptor = Descriptor(
            media_type=entry.media_type, digest=entry.digest, size=self._content.size(entry.digest)
        )
        return Loaded(
            id=manifest.config.digest,
            config=raw,
            manifest=descriptor,
            size=size,
            references=references,
        )

    def _image_manifest(self, entry: Descriptor) -> Descriptor | None:
        """The manifest to take for an entry of the layout: its own, or its index's for our platform."""
        for _ in range(_INDEX_DEPTH_MAX):
            if entry.media_type in media_types.MANIFESTS:
                is_image = self._manifest(entry).config.media_type in media_types.CONFIGS
                return entry if is_image else None
            if entry.media_type not in media_types.INDEXES:
                return None
            self._require(entry.digest)
            index = parse_index(self._content.read(entry.digest))
            chosen = select_platform(index.manifests, self._platform)
            if chosen is None:
                return None
            entry = chosen
        raise InvalidArgument("image indexes nested too deeply")

    def _manifest(self, entry: Descriptor) -> Manifest:
        self._require(entry.digest)
        manifest = parse_manifest(self._content.read(entry.digest))
        for blob in (manifest.config, *manifest.layers):
            self._require(blob.digest)
        return manifest

    def _require(self, digest: Digest) -> None:
        parse_digest(digest)
        if not self._content.has(digest):
            raise InvalidArgument(f"content digest {digest}: not found")

    def _entries(self, index: Index) -> list[Descriptor]:
        return [entry for entry in index.manifests if parse_digest(entry.digest)]

    # -- Layers -----------------------------------------------------------------------------------

    def _lay_out(self, raw_config: bytes, blobs: Sequence[Digest]) -> int:
        """Extract an image's layers; return the sum of their sizes."""
        config = parse_image_config(raw_config)
        diff_ids = config.rootfs.diff_ids
        if config.os not in ("", "linux"):
            raise Unsupported(f"cannot load {config.os} image on linux")
        if len(diff_ids) != len(blobs):
            raise InvalidArgument(
                f"invalid manifest, layers length mismatch: expected {len(blobs)}, "
                f"got {len(diff_ids)}"
            )
        layers = self._snapshots.layers
        chain: ChainID | None = None
        missing: list[tuple[Digest, ChainID | None, DiffID]] = []
        size = 0
        for diff_id, blob in zip(diff_ids, blobs, strict=True):
            parent, chain = chain, chain_id(chain, diff_id)
            if layers.has(chain):
                size += layers.get(chain).size
            else:
                missing.append((blob, parent, diff_id))
                self._early.want(blob)
        return size + sum(self._early.layer(*item).size for item in missing)

    def _compression(self, blob: Digest) -> str:
        with self._content.open(blob) as file:
            return compression_of(file.read(10))


def _tagged(text: str) -> Reference:
    reference = parse_reference(text)
    if reference.tag is None:
        raise InvalidArgument(f'invalid tag "{text}"')
    return reference


def _layout_references(entry: Descriptor) -> tuple[Reference, ...]:
    """What an entry's annotations call it. A tag alone, which belongs to a name that the layout
    does not have, is no name."""
    annotations = entry.annotations or {}
    for key in (CONTAINERD_NAME, REF_NAME):
        text = annotations.get(key, "")
        if ":" not in text and "/" not in text:
            continue
        try:
            reference = parse_reference(text).with_default_tag()
        except BadReference:
            continue
        if reference.tag:
            return (Reference(reference.domain, reference.path, reference.tag),)
    return ()
