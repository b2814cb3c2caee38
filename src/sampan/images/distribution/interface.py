"""What a repository of a registry can be asked for: what pull and push are written against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest or index as the registry sent it; `digest` is that of `data`, verified."""

    media_type: str
    digest: Digest
    data: bytes

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.data))


@dataclass(frozen=True, slots=True)
class LoginResult:
    """What a login gave: dockerd's words, and a token to keep instead of the password, or ""."""

    status: str
    identity_token: str = ""


class BlobStream(Protocol):
    """The bytes of a blob from `offset` on; `total` is the size of the whole blob.

    `offset` is what the registry really gave: 0 where it knows no ranges.
    """

    offset: int
    total: int

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, as they come, once. Nothing is hashed here; the length is checked.

        Raises:
            Temporary: the connection was cut, or nothing came for 60 s.
            RegistryFailure: more bytes than the descriptor says.
        """
        ...


class Repository(Protocol):
    """One repository of one registry; for pulls of docker.io, its mirrors first, then the Hub.

    All methods raise kinds of `sampan.errors` with dockerd's texts: NotFound, RegistryFailure
    (refused), Temporary (after the client's own retries of small requests).
    """

    name: str

    async def manifest(self, wanted: str) -> FetchedManifest:
        """The manifest or index of a tag or digest, at most 4 MiB.

        Raises:
            InvalidArgument: it is of schema version 1.
            RegistryFailure: its digest is not the one asked for.
        """
        ...

    async def resolve(self, wanted: str) -> Descriptor:
        """What a tag or digest is now, in one round trip where the registry knows HEAD."""
        ...

    def blob(
        self, descriptor: Descriptor, *, offset: int = 0
    ) -> AbstractAsyncContextManager[BlobStream]:
        """Open a blob for reading from `offset` on."""
        ...

    async def tags(self) -> list[str]:
        """All tags of the repository."""
        ...

    async def has_blob(self, digest: Digest) -> bool:
        """Whether the registry has a blob in this repository."""
        ...

    async def mount(self, digest: Digest, source_repository_path: str) -> bool:
        """Have the registry take a blob from another of its repositories (path without domain).

        False: it did not, and nothing is left of the attempt.
        """
        ...

    async def upload(
        self,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        progress: Callable[[int], None],
    ) -> None:
        """Send a blob. `open_at(offset)` gives its bytes from there on; `progress` gets how many
        bytes the registry has been sent so far (it may go back after a cut).

        After a cut it goes on where the registry says; Temporary when that did not help either.
        """
        ...

    async def put_manifest(self, wanted: str, media_type: str, data: bytes) -> Digest:
        """Store a manifest under a tag or digest."""
        ...
