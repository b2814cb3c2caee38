"""Taking an image archive apart: every file of it becomes a blob, under the name it had.

The archive is read once, front to back, as it arrives; what says how the files belong together
may come last. Nothing is written by the names in the archive.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from sampan.content.compression import decompressed
from sampan.content.store import ContentStore
from sampan.errors import InvalidArgument
from sampan.images.disk import storing
from sampan.oci import tar
from sampan.oci.digest import Digest
from sampan.snapshots.extract import clean

_LINKS_MAX = 16
_METADATA_MAX = 16 << 20


class Staging:
    """The files of one archive by their path in it."""

    def __init__(self, content: ContentStore, stored: Callable[[Digest], None]) -> None:
        """`stored` hears of each file that was not in the store before."""
        self._content = content
        self._stored = stored
        self._files: dict[str, Digest] = {}
        self._links: dict[str, str] = {}

    def read_archive(self, read: tar.Read) -> None:
        """Store every file of a (possibly compressed) tar.

        Raises:
            BadArchive, BadCompression: it is none, or damaged.
        """
        plain, _ = decompressed(read)
        reader = tar.TarReader(plain)
        for entry in reader:
            path = clean(entry.name).decode("utf-8", "surrogateescape")
            if entry.kind == tar.FILE and entry.segments is None:
                with storing(f"{path} of the archive"):
                    self._files[path] = self._store(reader)
            elif entry.kind == tar.SYMLINK:
                target = entry.link.decode("utf-8", "surrogateescape")
                self._links[path] = posixpath.join(posixpath.dirname(path), target)
            elif entry.kind == tar.HARD_LINK:
                self._links[path] = entry.link.decode("utf-8", "surrogateescape")
        reader.drain()

    def _store(self, reader: tar.TarReader) -> Digest:
        with self._content.writer() as writer:
            for piece in reader.data():
                writer.write(piece)
            known = self._content.has(writer.digest())
            digest = writer.commit()
        if not known:
            self._stored(digest)
        return digest

    def has(self, path: str) -> bool:
        return self._find(path) is not None

    def digest(self, path: str) -> Digest:
        """The digest of the bytes of a file.

        Raises:
            InvalidArgument: the archive has no such file.
        """
        digest = self._find(path)
        if digest is None:
            raise InvalidArgument(f"open {path}: no such file or directory")
        return digest

    def read(self, path: str) -> bytes:
        """The bytes of a metadata file, 16 MiB at most."""
        return self._content.read(self.digest(path), _METADATA_MAX)

    def _find(self, path: str) -> Digest | None:
        """Follow links by name only: they never reach the file system."""
        for _ in range(_LINKS_MAX):
            path = clean(posixpath.normpath("/" + path).encode("utf-8", "surrogateescape")).decode(
                "utf-8", "surrogateescape"
            )
            if path in self._files:
                return self._files[path]
            if path not in self._links:
                return None
            path = self._links[path]
        return None
