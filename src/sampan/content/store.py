"""The content store: immutable blobs found by digest, on disk as an OCI image layout.

    <root>/oci-layout, <root>/index.json       readable by other tools (skopeo oci:<root>)
    <root>/blobs/sha256/<hex>
    <root>/ingest/<n>                          being written; leftovers go when the store opens
    <root>/ingest/sha256-<hex>                 being fetched; kept for the next attempt

A blob is written beside its place, verified and renamed: a crash leaves no half blob.
Source: OCI image-spec, image-layout.md.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

from sampan.content.partial import DigestMismatch, Partial
from sampan.errors import InvalidArgument, NotFound
from sampan.linux import syscalls
from sampan.oci.digest import Digest, digest_of, hex_of, is_hex64
from sampan.oci.index import INDEX_FILE, LAYOUT, LAYOUT_FILE, encode_index

__all__ = ["BlobWriter", "ContentStore", "DigestMismatch", "Partial"]

_PARTIAL = "sha256-"


class ContentStore:
    """Blobs under one root. Safe to use from several threads; one process at a time."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._blobs = os.path.join(root, "blobs", "sha256")
        self._ingest = os.path.join(root, "ingest")
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._watching = False
        self._seen: set[Digest] = set()  # made or looked at while watching
        os.makedirs(self._blobs, mode=0o700, exist_ok=True)
        os.makedirs(self._ingest, mode=0o700, exist_ok=True)
        self._drop_leftovers()
        self._write_missing(LAYOUT_FILE, LAYOUT)
        self._write_missing(INDEX_FILE, encode_index([]))

    def writer(self) -> BlobWriter:
        """Begin a blob; as a context manager it is aborted unless committed."""
        return BlobWriter(self, os.path.join(self._ingest, str(next(self._numbers))))

    def partial(self, digest: Digest) -> Partial:
        """A blob to be fetched, with what earlier attempts left of it. One at a time for a digest."""
        self._see(digest)
        path = os.path.join(self._ingest, _PARTIAL + hex_of(digest))
        return Partial(digest, path, self.path(digest))

    def partials(self) -> list[tuple[Digest, int, int]]:
        """What was fetched and is no blob yet: (digest, bytes on disk, last written in Unix ns).

        Some of it may be complete: blobs are moved to their place when all of an image is there.
        """
        found = []
        with os.scandir(self._ingest) as entries:
            for entry in entries:
                digits = entry.name.removeprefix(_PARTIAL)
                if digits == entry.name or not is_hex64(digits):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # became a blob meanwhile
                found.append((Digest(f"sha256:{digits}"), status.st_size, status.st_mtime_ns))
        return found

    def drop_partial(self, digest: Digest) -> None:
        """Delete what was fetched of a blob, if anything; not while it is being fetched."""
        self.partial(digest).discard()

    def put(self, data: bytes, expected: Digest | None = None) -> Digest:
        """Store a small blob."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit(expected)

    def path(self, digest: Digest) -> str:
        """Where the blob of a checked digest is, or would be."""
        return f"{self._blobs}/{hex_of(digest)}"

    def has(self, digest: Digest) -> bool:
        self._see(digest)
        return os.path.exists(self.path(digest))

    def size(self, digest: Digest) -> int:
        """The blob's size in bytes.

        Raises:
            NotFound: the store has no such blob.
        """
        self._see(digest)
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading, unbuffered.

        Raises:
            NotFound: the store has no such blob.
        """
        self._see(digest)
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None

    def read(self, digest: Digest, limit: int = 16 << 20) -> bytes:
        """The bytes of a small blob: a manifest, an index, a config.

        Raises:
            NotFound: the store has no such blob.
            InvalidArgument: it is larger than `limit`.
        """
        with self.open(digest) as blob:
            data = blob.read(limit + 1)
        if len(data) > limit:
            raise InvalidArgument(f"content {digest}: larger than {limit} bytes")
        return data

    def read_verified(self, digest: Digest) -> bytes:
        """`read`, checked once more.

        Raises:
            NotFound, InvalidArgument: as `read`.
            DigestMismatch: the file is not what it was.
        """
        data = self.read(digest)
        if digest_of(data) != digest:
            raise DigestMismatch(f"content {digest} is damaged")
        return data

    def delete(self, digest: Digest) -> None:
        """Remove a blob, if it is there."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass

    def watch(self) -> None:
        """Begin to keep in mind which blobs are made or looked at, until `settle`."""
        with self._lock:
            self._watching = True

    def settle(self) -> set[Digest]:
        """End what `watch` began: the blobs, there or not, that were made or looked at since."""
        with self._lock:
            seen, self._seen = self._seen, set()
            self._watching = False
            return seen

    def retire(self, digest: Digest) -> str | None:
        """Take a blob out of the store, unless it was made or looked at since `watch`.

        Returns the path of the file, now in ingest/, which the caller has to unlink (that can take
        long); None where nothing was taken out.
        """
        with self._lock:
            if digest in self._seen:
                return None
            retired = os.path.join(self._ingest, str(next(self._numbers)))
            try:
                os.rename(self.path(digest), retired)
            except FileNotFoundError:
                return None
            except OSError:  # a full disk may have no room for another name
                os.unlink(self.path(digest))
                return None
            return retired

    def seen(self, digest: Digest) -> bool:
        """Whether the blob was made or looked at since `watch`."""
        return digest in self._seen

    def place(self, digest: Digest, path: str) -> None:
        """Move a written file to its place among the blobs."""
        self._see(digest)
        os.rename(path, self.path(digest))

    def _see(self, digest: Digest) -> None:
        if self._watching:
            with self._lock:
                self._seen.add(digest)

    def digests(self) -> Iterator[Digest]:
        """Every blob there is, in no order."""
        for name in os.listdir(self._blobs):
            if is_hex64(name):
                yield Digest(f"sha256:{name}")

    def sync(self) -> None:
        """Wait until all that was written to the root's file system is on the disk; syncfs(2)."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.check(syscalls.libc.syncfs(descriptor), "syncfs", self.root)
        finally:
            os.close(descriptor)

    def write_index(self, data: bytes) -> None:
        """Replace the layout's `index.json`, the entry points for other tools."""
        self._replace(INDEX_FILE, data)

    def _write_missing(self, name: str, data: bytes) -> None:
        if not os.path.exists(os.path.join(self.root, name)):
            self._replace(name, data)

    def _replace(self, name: str, data: bytes) -> None:
        temporary = os.path.join(self._ingest, name)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
            os.rename(temporary, os.path.join(self.root, name))
        except OSError:
            if os.path.lexists(temporary):
                os.unlink(temporary)
            raise

    def _drop_leftovers(self) -> None:
        for name in os.listdir(self._ingest):
            if not name.startswith(_PARTIAL):
                os.unlink(os.path.join(self._ingest, name))


class BlobWriter:
    """One blob being written: `write` any number of times, then `commit` or `abort`."""

    def __init__(self, store: ContentStore, path: str) -> None:
        self._store = store
        self._path = path
        self._sha256 = hashlib.sha256()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()

    def write(self, data: bytes | memoryview) -> None:
        self._sha256.update(data)
        self.size += len(data)
        while data:
            written = os.write(self._fd, data)
            if written == len(data):
                return
            data = memoryview(data)[written:]

    def digest(self) -> Digest:
        """The digest of what was written up to now."""
        return Digest("sha256:" + self._sha256.hexdigest())

    def commit(self, expected: Digest | None = None) -> Digest:
        """Verify, move the blob to its place and return its digest.

        Raises:
            DigestMismatch: the bytes do not hash to `expected`; nothing is kept.
        """
        digest = self.digest()
        if expected is not None and digest != expected:
            self.abort()
            raise DigestMismatch(f"content digest {digest}: expected {expected}")
        self._store.place(digest, self._path)
        os.close(self._fd)
        self._fd = -1
        return digest

    def abort(self) -> None:
        """Drop what was written; nothing to do after a commit."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            os.unlink(self._path)
