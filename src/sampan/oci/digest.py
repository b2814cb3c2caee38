"""Digests, diff IDs and chain IDs.

Source: OCI image-spec, descriptor.md "Digests"; config.md "Layer ChainID".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NewType

from sampan.errors import InvalidArgument

Digest = NewType("Digest", str)
"""`sha256:<64 lower-case hex>` of exact bytes."""
DiffID = NewType("DiffID", str)
"""The digest of a layer's uncompressed tar."""
ChainID = NewType("ChainID", str)
"""The digest of a stack of layers, from the bottom."""

_HEX = frozenset("0123456789abcdef")


class BadDigest(InvalidArgument):
    """The text is no digest that this engine can verify."""


def is_hex64(text: str) -> bool:
    return len(text) == 64 and _HEX.issuperset(text)


def parse_digest(text: str) -> Digest:
    """Check a digest from a client, a manifest or a registry.

    Raises:
        BadDigest: with the texts of Docker's digest library.
    """
    algorithm, colon, encoded = text.partition(":")
    if not colon or not algorithm or not encoded:
        raise BadDigest("invalid checksum digest format")
    if algorithm != "sha256":
        known = algorithm == algorithm.lower()
        raise BadDigest(
            "unsupported digest algorithm" if known else "invalid checksum digest format"
        )
    if len(encoded) != 64:
        raise BadDigest("invalid checksum digest length")
    if not _HEX.issuperset(encoded):
        raise BadDigest("invalid checksum digest format")
    return Digest(text)


def hex_of(digest: str) -> str:
    """The part of a valid digest behind the algorithm; what a blob's file is called."""
    return digest[7:]


def short_id(digest: str) -> str:
    """The twelve characters that Docker shows of an image, layer or container ID."""
    return digest.removeprefix("sha256:")[:12]


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def chain_id(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    """The chain ID of `diff_id` on top of `parent` (None: the bottom of a stack)."""
    if parent is None:
        return ChainID(diff_id)
    return ChainID(digest_of(f"{parent} {diff_id}".encode()))


def chain_ids(diff_ids: Sequence[DiffID]) -> list[ChainID]:
    """The chain ID of each layer of a stack, bottom first."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else None, diff_id))
    return chain
