"""`import`: the tar of a root file system becomes an image of one layer."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.content.compression import decompressed
from sampan.content.store import ContentStore
from sampan.images.archives.load import Loaded
from sampan.images.making.changes import apply_changes
from sampan.images.making.layers import store_image, store_layer
from sampan.oci.descriptor import Platform
from sampan.oci.image_config import History, ImageConfig, RootFS, RunDefaults
from sampan.oci.reference import Reference
from sampan.oci.tar import Read
from sampan.snapshots.overlay import Snapshotter


def new_defaults(changes: Sequence[str]) -> RunDefaults:
    """The run defaults that the changes make of nothing.

    Raises:
        InvalidArgument: as `apply_changes`.
    """
    config = RunDefaults()
    apply_changes(config, changes)
    return config


def import_tree(
    read: Read,
    *,
    content: ContentStore,
    snapshots: Snapshotter,
    config: RunDefaults,
    message: str,
    platform: Platform,
    created: str,
    reference: Reference | None,
) -> Loaded:
    """Read a (possibly compressed) tar once: it is stored, hashed and extracted as it arrives.

    Blocks; runs in a thread.

    Raises:
        InvalidArgument: it is no tar, or holds what no layer may.
    """
    plain, _ = decompressed(read)
    stored = store_layer(plain, None, content=content, snapshots=snapshots)
    document = ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        comment=message,
        config=config,
        rootfs=RootFS(diff_ids=[stored.layer.diff_id]),
        history=[History(created=created, comment=message)],
    )
    return store_image(
        document,
        [stored.blob],
        stored.layer.size,
        content=content,
        references=(reference,) if reference else (),
    )
