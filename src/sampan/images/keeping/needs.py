"""Who needs which blob and which stack of layers: counted as images come and go.

A change costs what the image has, not what the store has; what nobody needs any more falls out of
`put` and `drop`, so nobody has to look for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sampan.oci.digest import ChainID, Digest

_NOBODY: frozenset[str] = frozenset()


class Parts(NamedTuple):
    """What an owner needs: blobs with their sizes in bytes, and the top of its layers."""

    blobs: Mapping[Digest, int]
    chain: ChainID | None


class Freed(NamedTuple):
    """What nobody needs any more: blobs with their sizes, and the top of a stack of layers."""

    blobs: Mapping[Digest, int]
    chain: ChainID | None


NOTHING = Freed({}, None)


class Needs:
    """Owners (image IDs, operations under way) and their parts.

    `blob_bytes` is the size of all blobs that somebody needs, each once.
    """

    def __init__(self) -> None:
        self.blob_bytes = 0
        self._parts: dict[str, Parts] = {}
        self._blobs: dict[Digest, set[str]] = {}
        self._chains: dict[ChainID, set[str]] = {}

    def put(self, owner: str, parts: Parts) -> Freed:
        """Set what an owner needs, in place of what it needed before."""
        before = self._parts.get(owner)
        self._parts[owner] = parts
        for digest, size in parts.blobs.items():
            self._add_blob(digest, size, owner)
        if parts.chain is not None:
            self._chains.setdefault(parts.chain, set()).add(owner)
        if before is None:
            return NOTHING
        gone = [digest for digest in before.blobs if digest not in parts.blobs]
        chain = before.chain if before.chain != parts.chain else None
        return self._release(owner, {digest: before.blobs[digest] for digest in gone}, chain)

    def drop(self, owner: str) -> Freed:
        """Forget an owner; an unknown one needs nothing."""
        parts = self._parts.pop(owner, None)
        if parts is None:
            return NOTHING
        return self._release(owner, parts.blobs, parts.chain)

    def parts(self, owner: str) -> Parts | None:
        return self._parts.get(owner)

    def owners_of_blob(self, digest: Digest) -> Iterable[str]:
        return self._blobs.get(digest, _NOBODY)

    def owners_of_chain(self, chain: ChainID) -> Iterable[str]:
        """The owners whose topmost layer this is."""
        return self._chains.get(chain, _NOBODY)

    def blob_sizes(self) -> dict[Digest, int]:
        """The length of every blob that somebody needs, as its manifest says."""
        return {
            digest: size for parts in self._parts.values() for digest, size in parts.blobs.items()
        }

    def is_shared(self, digest: Digest) -> bool:
        """Whether several need a blob."""
        return len(self._blobs.get(digest, _NOBODY)) > 1

    def needs_blob(self, digest: Digest) -> bool:
        return digest in self._blobs

    def needs_chain(self, chain: ChainID) -> bool:
        return chain in self._chains

    def _add_blob(self, digest: Digest, size: int, owner: str) -> None:
        owners = self._blobs.get(digest)
        if owners is None:
            owners = self._blobs[digest] = set()
            self.blob_bytes += size
        owners.add(owner)

    def _release(self, owner: str, blobs: Mapping[Digest, int], chain: ChainID | None) -> Freed:
        freed: dict[Digest, int] = {}
        for digest, size in blobs.items():
            owners = self._blobs[digest]
            owners.discard(owner)
            if not owners:
                del self._blobs[digest]
                self.blob_bytes -= size
                freed[digest] = size
        if chain is None:
            return Freed(freed, None)
        stacks = self._chains[chain]
        stacks.discard(owner)
        if stacks:
            return Freed(freed, None)
        del self._chains[chain]
        return Freed(freed, chain)
