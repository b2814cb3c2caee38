"""What a registry holds under a name, without pulling it: docker's DistributionInspect."""

from __future__ import annotations

from typing import Any

import msgspec

from sampan.errors import InvalidArgument, SampanError
from sampan.images.distribution.failures import RegistryFailure
from sampan.images.distribution.interface import FetchedManifest, Repository
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import digest_of
from sampan.oci.index import parse_index
from sampan.oci.manifest import parse_manifest
from sampan.oci.media_types import INDEXES
from sampan.oci.reference import DEFAULT_TAG, Reference, parse_reference

CONFIG_LIMIT = 4 << 20
_PLATFORM_FIELDS = ("architecture", "os", "os.version", "os.features", "variant")


def parse_remote(name: str) -> Reference:
    """The reference of something in a registry.

    Raises:
        InvalidArgument: dockerd's texts; a bare image ID is no such reference.
    """
    if len(name) == 64 and all(char in "0123456789abcdef" for char in name):
        raise InvalidArgument("no manifest found for full image ID")
    return parse_reference(name)


def wanted_of(reference: Reference) -> str:
    """The digest or the tag (`latest` where it has neither) to ask a repository for."""
    return reference.digest or reference.tag or DEFAULT_TAG


async def inspect(repository: Repository, wanted: str) -> dict[str, Any]:
    """Descriptor and platforms of a tag or digest; Platforms is None where none is told.

    Raises:
        SampanError: of `Repository.manifest`.
    """
    if ":" not in wanted:
        wanted = (await repository.resolve(wanted)).digest
    fetched = await repository.manifest(wanted)
    platforms = await _platforms(repository, fetched)
    descriptor = {
        "mediaType": fetched.media_type,
        "digest": fetched.digest,
        "size": len(fetched.data),
    }
    return {"Descriptor": descriptor, "Platforms": platforms or None}


async def _platforms(repository: Repository, fetched: FetchedManifest) -> list[dict[str, Any]]:
    if fetched.media_type in INDEXES:
        entries = parse_index(fetched.data).manifests
        return [msgspec.to_builtins(entry.platform) for entry in entries if entry.platform]
    try:
        config = await small_blob(repository, parse_manifest(fetched.data).config)
        document = msgspec.json.decode(config)
    except (SampanError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []  # no image's config: dockerd tells no platform then
    if not isinstance(document, dict):
        return []
    platform = {name: document[name] for name in _PLATFORM_FIELDS if document.get(name)}
    return [platform] if platform.get("os") or platform.get("architecture") else []


async def small_blob(repository: Repository, descriptor: Descriptor) -> bytes:
    """A config or another small blob, verified.

    Raises:
        SampanError: it is larger than 4 MiB, is not what its digest says, or cannot be had.
    """
    if descriptor.size > CONFIG_LIMIT:
        raise RegistryFailure(f"blob {descriptor.digest} is larger than {CONFIG_LIMIT} bytes")
    async with repository.blob(descriptor) as stream:
        data = b"".join([chunk async for chunk in stream.chunks()])
    if digest_of(data) != descriptor.digest:
        raise RegistryFailure(f"blob verification failed for digest {descriptor.digest}")
    return data
