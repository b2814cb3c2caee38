"""Saving images: one tar that is a docker-archive and an OCI layout at once, as Docker ≥ 25 writes.

dockerd (20.10, too), podman and skopeo load it. Blobs are streamed as they are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import msgspec

from sampan.content.compression import compression_of, decompressed
from sampan.content.store import ContentStore
from sampan.images.archives.load import DOCKER_MANIFEST_FILE
from sampan.images.image import Image
from sampan.oci import tar_writer
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import DiffID, Digest, hex_of
from sampan.oci.index import (
    CONTAINERD_NAME,
    INDEX_FILE,
    LAYOUT,
    LAYOUT_FILE,
    REF_NAME,
    encode_index,
)
from sampan.oci.manifest import parse_manifest
from sampan.oci.reference import Reference
from sampan.oci.tar import Read

_PIECE = 1 << 20


@dataclass(slots=True)
class Selection:
    """An image to save, with the references asked for."""

    image: Image
    references: list[Reference] = field(default_factory=list)


async def archive(content: ContentStore, selections: Sequence[Selection]) -> AsyncIterator[bytes]:
    """Stream the archive in pieces of at most 1 MiB and their padding."""
    with ExitStack() as stack:
        blobs = {
            digest: stack.enter_context(content.open(digest))
            for digest in _digests(content, selections)
        }
        yield tar_writer.header(tar_writer.directory_entry("blobs")) + tar_writer.header(
            tar_writer.directory_entry("blobs/sha256")
        )
        for digest, blob in blobs.items():
            size = content.size(digest)
            yield tar_writer.header(tar_writer.file_entry(_path(digest), size))
            while piece := await asyncio.to_thread(blob.read, _PIECE):
                yield piece
            yield tar_writer.padding(size)
        for diff_id, digest in _plain_copies(content, selections).items():
            async for piece in _plain_layer(content, diff_id, digest):
                yield piece
        for name, data in _metadata(content, selections):
            yield _small_file(name, data)
        yield tar_writer.END


async def _plain_layer(
    content: ContentStore, diff_id: DiffID, digest: Digest
) -> AsyncIterator[bytes]:
    """A layer's plain tar as a member; it is decompressed once before, to learn its size."""
    with content.open(digest) as blob:
        read, _ = decompressed(blob.read)
        size = await asyncio.to_thread(_length, read)
        blob.seek(0)
        read, _ = decompressed(blob.read)
        yield tar_writer.header(tar_writer.file_entry(_path(diff_id), size))
        while piece := await asyncio.to_thread(read, _PIECE):
            yield piece
        yield tar_writer.padding(size)


def _length(read: Read) -> int:
    total = 0
    while piece := read(_PIECE):
        total += len(piece)
    return total


def _plain_copies(content: ContentStore, selections: Sequence[Selection]) -> dict[DiffID, Digest]:
    """The layers whose compression a docker-archive's readers need not know (dockerd 20.10 knows
    gzip, not zstd): they are in the archive plain, too."""
    return {
        diff_id: digest
        for selection in selections
        for diff_id, digest in zip(
            selection.image.layers, _layer_blobs(content, selection.image), strict=True
        )
        if _needs_plain_copy(content, digest)
    }


def _needs_plain_copy(content: ContentStore, digest: Digest) -> bool:
    with content.open(digest) as blob:
        return compression_of(blob.read(10)) not in ("", "gzip")


def _layer_blobs(content: ContentStore, image: Image) -> list[Digest]:
    return image_blobs(content, image)[:-2]


def layout_index(images: Sequence[Selection]) -> bytes:
    """The `index.json` of a layout that holds these images: an entry for each reference."""
    return encode_index([entry for item in images for entry in _entries(item)])


def _entries(selection: Selection) -> list[Descriptor]:
    record = selection.image.record
    names: list[dict[str, str] | None] = [
        {CONTAINERD_NAME: str(reference), REF_NAME: reference.tag}
        for reference in selection.references
        if reference.tag
    ]
    return [
        Descriptor(
            media_type=record.manifest_media_type,
            digest=Digest(record.manifest_digest),
            size=record.manifest_size,
            annotations=annotations,
        )
        for annotations in names or [None]
    ]


def _digests(content: ContentStore, selections: Sequence[Selection]) -> dict[Digest, None]:
    """Every blob of the images once, in a stable order."""
    digests: dict[Digest, None] = {}
    for selection in selections:
        for digest in image_blobs(content, selection.image):
            digests[digest] = None
    return digests


def image_blobs(content: ContentStore, image: Image) -> list[Digest]:
    """The digests of an image's layers, config and manifest."""
    manifest_digest = Digest(image.record.manifest_digest)
    manifest = parse_manifest(content.read(manifest_digest))
    return [*(layer.digest for layer in manifest.layers), image.id, manifest_digest]


def _metadata(content: ContentStore, selections: Sequence[Selection]) -> list[tuple[str, bytes]]:
    items = []
    repositories: dict[str, dict[str, str]] = {}
    for selection in selections:
        layers = [
            Digest(diff_id) if _needs_plain_copy(content, digest) else digest
            for diff_id, digest in zip(
                selection.image.layers, _layer_blobs(content, selection.image), strict=True
            )
        ]
        tags = [reference for reference in selection.references if reference.tag]
        items.append(
            {
                "Config": _path(selection.image.id),
                "RepoTags": [reference.familiar for reference in tags] or None,
                "Layers": [_path(digest) for digest in layers],
            }
        )
        for reference in tags:
            top = hex_of(layers[-1]) if layers else ""
            repositories.setdefault(reference.familiar_name, {})[reference.tag or ""] = top
    files = [
        (INDEX_FILE, layout_index(selections)),
        (DOCKER_MANIFEST_FILE, msgspec.json.encode(items)),
        (LAYOUT_FILE, LAYOUT),
    ]
    if repositories:
        files.append(("repositories", msgspec.json.encode(repositories)))
    return files


def _path(digest: Digest | DiffID) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _small_file(name: str, data: bytes) -> bytes:
    header = tar_writer.header(tar_writer.file_entry(name, len(data)))
    return header + data + tar_writer.padding(len(data))
