"""Image indexes: manifests for several platforms, or the entry points of a layout.

Source: OCI image-spec, image-index.md and image-layout.md.
"""

from __future__ import annotations

import msgspec

from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import parse_digest
from sampan.oci.documents import decoded

LAYOUT_FILE = "oci-layout"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_FILE = "index.json"
REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation: the tag, or with some tools the whole reference, of a layout's entry."""
CONTAINERD_NAME = "io.containerd.image.name"
"""Annotation that Docker and containerd add: the whole reference."""


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    schema_version: int
    media_type: str = ""
    manifests: list[Descriptor]
    annotations: dict[str, str] | None = None


_decoder = msgspec.json.Decoder(Index)


def parse_index(data: bytes) -> Index:
    """Decode an index and check its digests.

    Raises:
        InvalidArgument: it is no index.
    """
    index = decoded(_decoder, data, "image index")
    for descriptor in index.manifests:
        parse_digest(descriptor.digest)
    return index


def encode_index(manifests: list[Descriptor]) -> bytes:
    return msgspec.json.encode(
        Index(schema_version=2, media_type=media_types.OCI_INDEX, manifests=manifests)
    )


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry says something of another one, and is no image."""
    annotations = entry.annotations or {}
    return annotations.get("vnd.docker.reference.type") == "attestation-manifest"
