"""Rows that say in which repositories of registries a blob was seen.

A push to another repository of the same registry can then have the blob mounted from there.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from sampan.state.database import Database

_KEPT_PER_BLOB = 50


class BlobSources:
    """Repositories (`domain/path`) by blob digest."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, digests: Iterable[str], repository: str) -> None:
        """Remember that a repository has these blobs, in one transaction or the caller's.

        The repositories seen last are kept, 50 per blob.
        """
        now_ns = time.time_ns()
        for digest in digests:
            self._database.execute(
                "INSERT INTO blob_sources (digest, repository, seen_ns) VALUES (?, ?, ?)"
                " ON CONFLICT (digest, repository) DO UPDATE SET seen_ns = excluded.seen_ns",
                (digest, repository, now_ns),
            )
            self._database.execute(
                "DELETE FROM blob_sources WHERE digest = ? AND repository IN ("
                " SELECT repository FROM blob_sources WHERE digest = ?"
                " ORDER BY seen_ns DESC, repository LIMIT -1 OFFSET ?)",
                (digest, digest, _KEPT_PER_BLOB),
            )

    def of(self, digest: str, domain: str) -> list[str]:
        """The repositories of one registry that have the blob, the one seen last first."""
        rows = self._database.read(
            "SELECT repository FROM blob_sources WHERE digest = ? ORDER BY seen_ns DESC, repository",
            (digest,),
        )
        return [name for (name,) in rows if name.startswith(f"{domain}/")]

    def seen_ns(self, digests: Collection[str], repository: str) -> int:
        """When the repository was seen to have all of these blobs (Unix ns); 0: never."""
        if not digests:
            return 0
        places = ",".join("?" * len(digests))
        [(found, oldest_ns)] = self._database.read(
            "SELECT COUNT(*), MIN(seen_ns) FROM blob_sources"
            f" WHERE repository = ? AND digest IN ({places})",
            (repository, *digests),
        )
        return oldest_ns if found == len(digests) else 0

    def forget(self, digest: str, repository: str) -> None:
        """A repository does not have the blob (any more)."""
        self._database.execute(
            "DELETE FROM blob_sources WHERE digest = ? AND repository = ?", (digest, repository)
        )

    def keep_only(self, digests: Collection[str]) -> None:
        """Forget the blobs that are not among these, in one transaction."""

        def change(database: Database) -> None:
            for (digest,) in database.read("SELECT DISTINCT digest FROM blob_sources"):
                if digest not in digests:
                    database.execute("DELETE FROM blob_sources WHERE digest = ?", (digest,))

        self._database.write(change)
