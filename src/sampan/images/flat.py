"""`import`: the tar of a root file system becomes an image of one layer."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.content.compression import decompressed
from sampan.content.store import ContentStore
from sampan.images.changes import apply_changes
from sampan.images.load import Loaded
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor, Platform
from sampan.oci.digest import DiffID
from sampan.oci.image_config import History, ImageConfig, RootFS, RunDefaults, encode_image_config
from sampan.oci.manifest import encode_manifest
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
    with content.writer() as writer:

        def tee(size: int) -> bytes:
            data = plain(size)
            writer.write(data)
            return data

        layer = snapshots.extract(tee, None, digest=writer.digest)
        blob = writer.commit()
        layer_size = writer.size
    raw = _config(config, layer.diff_id, message, platform, created)
    config_descriptor = Descriptor(
        media_type=media_types.OCI_CONFIG, digest=content.put(raw), size=len(raw)
    )
    layers = [Descriptor(media_type=media_types.OCI_LAYER, digest=blob, size=layer_size)]
    manifest = encode_manifest(config_descriptor, layers)
    return Loaded(
        id=config_descriptor.digest,
        config=raw,
        manifest=Descriptor(
            media_type=media_types.OCI_MANIFEST, digest=content.put(manifest), size=len(manifest)
        ),
        size=layer.size,
        references=(reference,) if reference else (),
    )


def _config(
    config: RunDefaults, diff_id: DiffID, message: str, platform: Platform, created: str
) -> bytes:
    return encode_image_config(
        ImageConfig(
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant,
            created=created,
            comment=message,
            config=config,
            rootfs=RootFS(diff_ids=[diff_id]),
            history=[History(created=created, comment=message)],
        )
    )
