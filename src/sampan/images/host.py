"""The `host` image: the machine's own root file system under a throw-away layer.

It is made from nothing at each start of the engine: no rows, no blobs, no layers. The reference
is reserved, so no other image can be given that name.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument
from sampan.images.image import Image
from sampan.oci.descriptor import local_platform
from sampan.oci.digest import digest_of
from sampan.oci.image_config import ImageConfig, RunDefaults, encode_image_config
from sampan.oci.reference import Reference, parse_reference
from sampan.snapshots.overlay import HOST
from sampan.state.images import ImageRecord

REFERENCE = parse_reference("host:latest")
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def host_image() -> Image:
    """The image `host`, for this machine."""
    platform = local_platform()
    shell = "bash" if os.path.exists("/bin/bash") else "sh"
    config = ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        comment="the machine's own root file system",
        config=RunDefaults(env=[DEFAULT_PATH], cmd=[shell]),
    )
    raw = encode_image_config(config)
    record = ImageRecord(manifest_media_type="", manifest_digest="", manifest_size=0)
    image = Image(raw, digest_of(raw), record, parent=HOST)
    image.references = [REFERENCE]
    return image


def refuse_reserved(reference: Reference) -> None:
    """Keep the name `host` for the host image, and `sha256` for digests.

    Raises:
        InvalidArgument: `reference` is one of these; in docker's words where it refuses it, too.
    """
    if reference.familiar_name == "sha256":
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
    if reference.repository == REFERENCE.repository:
        raise InvalidArgument("the image name host is reserved for the machine's own root")
