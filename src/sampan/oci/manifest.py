"""Image manifests: one config and its layers. Source: OCI image-spec, manifest.md."""

from __future__ import annotations

import msgspec

from sampan.errors import InvalidArgument
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import parse_digest
from sampan.oci.documents import decoded


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A decoded manifest. Whoever needs its digest keeps the raw bytes: encoding it again
    changes them."""

    schema_version: int
    media_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | None = None


_SIZE_LIMIT = 1 << 63
_decoder = msgspec.json.Decoder(Manifest)


def parse_manifest(data: bytes) -> Manifest:
    """Decode a manifest and check its digests and sizes.

    Raises:
        InvalidArgument: it is no manifest of schema version 2.
    """
    manifest = decoded(_decoder, data, "image manifest")
    if manifest.schema_version != 2:
        raise InvalidArgument(f"unsupported manifest schema version {manifest.schema_version}")
    for descriptor in (manifest.config, *manifest.layers):
        parse_digest(descriptor.digest)
        if not 0 <= descriptor.size < _SIZE_LIMIT:
            raise InvalidArgument(f"invalid image manifest: size {descriptor.size}")
    return manifest


def encode_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """The raw bytes of a new OCI manifest."""
    manifest = Manifest(
        schema_version=2, media_type=media_types.OCI_MANIFEST, config=config, layers=layers
    )
    return msgspec.json.encode(manifest)


def in_docker_types(manifest: Manifest) -> bytes | None:
    """The raw bytes of the same manifest as Docker's schema 2, for registries that do not know
    OCI's types; None where Docker has no type for a layer (zstd)."""
    layers = [_DOCKER_LAYERS.get(layer.media_type) for layer in manifest.layers]
    if None in layers:
        return None
    docker = Manifest(
        schema_version=2,
        media_type=media_types.DOCKER_MANIFEST,
        config=_of_type(manifest.config, media_types.DOCKER_CONFIG),
        layers=[_of_type(x, kind) for x, kind in zip(manifest.layers, layers, strict=True) if kind],
    )
    return msgspec.json.encode(docker)


_DOCKER_LAYERS = {
    media_types.OCI_LAYER: media_types.DOCKER_LAYER,
    media_types.OCI_LAYER_GZIP: media_types.DOCKER_LAYER_GZIP,
}


def _of_type(descriptor: Descriptor, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=descriptor.digest, size=descriptor.size)
