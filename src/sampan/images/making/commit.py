"""`commit`: an image of what a container changed, on top of the image that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event
from typing import NamedTuple

import msgspec

from sampan.content.store import ContentStore
from sampan.errors import NotFound
from sampan.images.archives.load import Loaded
from sampan.images.image import Image
from sampan.images.making.layers import reader, store_image, store_layer
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest
from sampan.oci.image_config import History, ImageConfig, RootFS, RunDefaults
from sampan.oci.manifest import parse_manifest
from sampan.oci.reference import Reference
from sampan.oci.tar_writer import END
from sampan.snapshots.overlay import Snapshotter


class Commit(NamedTuple):
    """What a new image is to say of itself; `created` as Go writes times."""

    config: RunDefaults
    author: str
    message: str
    created: str
    created_by: str
    reference: Reference | None


def commit_layer(
    pieces: Iterator[bytes],
    parent: Image,
    commit: Commit,
    stop: Event,
    *,
    content: ContentStore,
    snapshots: Snapshotter,
) -> Loaded:
    """Make an image of `parent` and a layer whose tar comes in `pieces`. Blocks; for a thread.

    A layer without anything in it is left out; its line in the history says so.

    Raises:
        NotFound: the parent's content is gone.
        Stopped: `stop` was set meanwhile; the layer is not kept.
    """
    blobs = parent_blobs(content, parent)
    diff_ids, size = list(parent.layers), parent.size
    first = next(pieces, END)
    if first != END:
        stored = store_layer(
            reader(_again(first, pieces), stop),
            parent.chain_id,
            content=content,
            snapshots=snapshots,
        )
        blobs.append(stored.blob)
        diff_ids.append(stored.layer.diff_id)
        size += stored.layer.size
    line = History(
        created=commit.created,
        created_by=commit.created_by,
        author=commit.author,
        comment=commit.message,
        empty_layer=first == END,
    )
    config: ImageConfig = msgspec.structs.replace(
        parent.document,
        created=commit.created,
        author=commit.author,
        comment="",
        docker_version="",
        config=commit.config,
        rootfs=RootFS(diff_ids=diff_ids),
        history=[*complete_history(parent), line],
    )
    references = (commit.reference,) if commit.reference else ()
    return store_image(
        config, blobs, size, content=content, references=references, parent=parent.id
    )


def parent_blobs(content: ContentStore, parent: Image) -> list[Descriptor]:
    """The layers of an image that is to be built on.

    Raises:
        NotFound: one of them is gone.
    """
    if not parent.record.manifest_digest:
        return []
    manifest = parse_manifest(content.read(Digest(parent.record.manifest_digest)))
    for layer in manifest.layers:
        if not content.has(layer.digest):
            raise NotFound(f"content {layer.digest}: not found")
    return manifest.layers


def complete_history(image: Image) -> Sequence[History]:
    """An image's history with a line for every layer, where the image says nothing of some."""
    history = image.document.history
    missing = len(image.layers) - sum(not line.empty_layer for line in history)
    return [History(created=image.created)] * missing + history


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
