"""Images put into a registry by hand: exact manifests, layers of any bytes, indexes of platforms.

made = put_image(registry, "team/app", "1.0", [layer(100_000), layer(5_000)])
made.digest  made.manifest  made.layers[0].digest
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.oci import media_types
from support.registries import Registry
from support.tars import archive, directory, file

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_DOCKER = {
    media_types.OCI_MANIFEST: media_types.DOCKER_MANIFEST,
    media_types.OCI_INDEX: media_types.DOCKER_INDEX,
    media_types.OCI_CONFIG: media_types.DOCKER_CONFIG,
    media_types.OCI_LAYER: media_types.DOCKER_LAYER,
    media_types.OCI_LAYER_GZIP: media_types.DOCKER_LAYER_GZIP,
}


@dataclass(frozen=True)
class Blob:
    """Bytes and what a descriptor says of them."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


@dataclass(frozen=True)
class Made:
    """An image in a registry. `layers` bottom first, `plain` their tars; `id` the config's digest."""

    manifest: Blob
    config: Blob
    layers: list[Blob]
    plain: list[bytes]

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def id(self) -> str:
        return self.config.digest


def layer(size: int, *, seed: int = 0, name: str = "data") -> bytes:
    """A layer's plain tar with one directory and one file of that many random bytes."""
    content = random.Random(seed * 1_000_003 + size).randbytes(size)
    return archive([directory(f"{name}{seed}"), file(f"{name}{seed}/random", content)])


def put_image(
    registry: Registry,
    repository: str,
    tag: str,
    layers: Sequence[bytes],
    *,
    docker: bool = False,
    compression: str = "gzip",
    config: Mapping[str, Any] | None = None,
    platform: tuple[str, str] = ("linux", "amd64"),
) -> Made:
    """Store an image of these layers (plain tars) under a tag; an empty tag: by digest only.

    `docker`: Docker's media types instead of OCI's. `compression`: gzip, zstd or empty.
    """
    made = make_image(
        layers, docker=docker, compression=compression, config=config, platform=platform
    )
    for blob in [*made.layers, made.config]:
        put_blob(registry, repository, blob.data)
    put_manifest(registry, repository, tag or made.digest, made.manifest)
    return made


def make_image(
    layers: Sequence[bytes],
    *,
    docker: bool = False,
    compression: str = "gzip",
    config: Mapping[str, Any] | None = None,
    platform: tuple[str, str] = ("linux", "amd64"),
) -> Made:
    """The same, made only."""
    kind = media_types.LAYER_BY_COMPRESSION[compression]
    blobs = [Blob(_type(kind, docker), _compressed(data, compression)) for data in layers]
    document = {
        "architecture": platform[1],
        "os": platform[0],
        "created": "2024-01-02T03:04:05.678Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"], **(config or {})},
        "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
        "rootfs": {
            "type": "layers",
            "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers],
        },
    }
    stored = Blob(_type(media_types.OCI_CONFIG, docker), json.dumps(document).encode())
    # Spaces that no encoder of ours would write: whoever encodes it again changes the digest.
    manifest = {
        "schemaVersion": 2,
        "mediaType": _type(media_types.OCI_MANIFEST, docker),
        "config": stored.descriptor,
        "layers": [blob.descriptor for blob in blobs],
    }
    raw = json.dumps(manifest, indent=3).encode() + b"\n"
    return Made(Blob(str(manifest["mediaType"]), raw), stored, blobs, list(layers))


def put_index(
    registry: Registry,
    repository: str,
    tag: str,
    images: Mapping[str, Made],
    *,
    docker: bool = False,
) -> Blob:
    """Store an index: `linux/amd64` or `linux/arm64/v8` → image, which has to be in the repository."""
    entries = []
    for platform, made in images.items():
        names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        entries.append({**made.manifest.descriptor, "platform": names})
    kind = _type(media_types.OCI_INDEX, docker)
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    blob = Blob(kind, json.dumps(document, indent=3).encode())
    put_manifest(registry, repository, tag or blob.digest, blob)
    return blob


def put_blob(registry: Registry, repository: str, data: bytes) -> str:
    """Store a blob; returns its digest."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    begun = registry.in_repository("POST", repository, "blobs/uploads/")
    assert begun.status == 202, begun
    _, _, rest = begun.headers["location"].partition("/v2/")
    path = f"/v2/{rest}{'&' if '?' in rest else '?'}digest={digest}"
    headers = {"Content-Type": "application/octet-stream"}
    scope = f"repository:{repository}:pull,push"
    done = registry.request("PUT", path, body=data, headers=headers, scope=scope)
    assert done.status == 201, done
    return digest


def put_manifest(registry: Registry, repository: str, reference: str, manifest: Blob) -> None:
    headers = {"Content-Type": manifest.media_type}
    path = f"manifests/{reference}"
    done = registry.in_repository("PUT", repository, path, body=manifest.data, headers=headers)
    assert done.status == 201, done


def _type(kind: str, docker: bool) -> str:
    return _DOCKER[kind] if docker else kind


def _compressed(data: bytes, compression: str) -> bytes:
    if compression == "zstd":
        return bytes(zstd.compress(data))
    return gzip.compress(data, 1, mtime=0) if compression else data
