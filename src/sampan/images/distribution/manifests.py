"""Manifests as they are asked for and as they come: which kind one is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sampan.errors import InvalidArgument
from sampan.images.distribution.failures import RegistryFailure
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import BadDigest, parse_digest
from sampan.oci.media_types import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
)

SIZE_LIMIT = 4 << 20
"""OCI distribution-spec, "Pushing Manifests": what every registry has to take."""

# Schema 1 too, so that an image that has nothing else is refused by what it is.
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
_SCHEMA_1_KINDS = (SCHEMA_1, "application/vnd.docker.distribution.manifest.v1+json")
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST, SCHEMA_1))
_KNOWN = INDEXES | MANIFESTS


class _Version(msgspec.Struct, rename="camel"):
    schema_version: int


def refuse_schema_1(content_type: str, data: bytes, shown: str) -> None:
    """Refuse what was pushed before 2016; its digest is not that of its bytes.

    Raises:
        InvalidArgument: Docker's text, which names `shown`.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        version = None
    if _declared(content_type) in _SCHEMA_1_KINDS or version == 1:
        raise InvalidArgument(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been "
            f"removed. Suggest the author of {shown} to upgrade the image to the OCI Format or "
            "Docker Image manifest v2, schema 2. More information at "
            "https://docs.docker.com/go/deprecated-image-specs/"
        )


def media_type_of(content_type: str, data: bytes, shown: str) -> str:
    """The kind of a manifest; what it says itself and what the registry says must not differ.

    Raises:
        RegistryFailure: it is no manifest.
    """
    declared = _declared(content_type)
    document = _document(data, shown)
    own = str(document.get("mediaType") or "")
    if declared in _KNOWN and own in _KNOWN and declared != own:
        raise RegistryFailure(
            f"manifest of {shown}: the registry calls it {declared}, it calls itself {own}"
        )
    if declared in _KNOWN or own in _KNOWN:
        return declared if declared in _KNOWN else own
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    if isinstance(document.get("config"), dict) and isinstance(document.get("layers"), list):
        return OCI_MANIFEST
    raise RegistryFailure(f"manifest of {shown}: unsupported media type {declared or own!r:.200}")


def _declared(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def descriptor_of(headers: Mapping[str, str]) -> Descriptor | None:
    """What the head of a manifest's answer describes, None where something is missing."""
    media_type = _declared(headers.get("Content-Type", ""))
    length = headers.get("Content-Length", "")
    if media_type not in _KNOWN or not (length.isascii() and length.isdigit()):
        return None
    try:
        digest = parse_digest(headers.get("Docker-Content-Digest", ""))
    except BadDigest:
        return None
    return Descriptor(media_type=media_type, digest=digest, size=int(length[:19]))


def _document(data: bytes, shown: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryFailure(f"manifest of {shown}: {error}") from error
    if not isinstance(value, dict):
        raise RegistryFailure(f"manifest of {shown}: it is no JSON object")
    return value
