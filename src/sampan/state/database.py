"""One SQLite file in WAL mode: connections, transactions, migrations.

SQL lives in this package; callers see dataclasses. A change is a function run inside
`BEGIN IMMEDIATE`, inline on the caller's thread: with `synchronous=NORMAL` it costs some 30 µs and
waits for no disk. A crash of the machine may lose the last transactions, never the file's
consistency (sqlite.org/wal.html); a crash of the process loses nothing.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sampan.errors import Unavailable
from sampan.linux.allocation import reserve
from sampan.state import backups

Result = TypeVar("Result")
Row = tuple[Any, ...]

RESERVED_LOG_BYTES = 4608 << 10
"""As long as the log gets before SQLite begins it anew (wal_autocheckpoint, 1000 pages)."""
RESERVED_GROWTH_BYTES = 256 << 10

# Position in the list + 1 is the schema version in `PRAGMA user_version`. Forward only: an entry
# that was released is never edited, a change is a new entry.
MIGRATIONS: list[str] = [
    """
    CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created_ns INTEGER NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        created_ns INTEGER NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    CREATE TABLE image_references (
        reference TEXT PRIMARY KEY,
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX image_references_by_image ON image_references (image_id);
    CREATE TABLE settings (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE blob_sources (
        digest TEXT NOT NULL,
        repository TEXT NOT NULL,
        seen_ns INTEGER NOT NULL,
        PRIMARY KEY (digest, repository)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE volumes (
        name TEXT PRIMARY KEY,
        created_ns INTEGER NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE post_mortems (
        container_id TEXT NOT NULL,
        finished_ns INTEGER NOT NULL,
        name TEXT NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (container_id, finished_ns)
    ) STRICT;
    CREATE INDEX post_mortems_by_name ON post_mortems (name);
    CREATE INDEX post_mortems_by_time ON post_mortems (finished_ns);
    """,
    """
    CREATE TABLE leases (
        name TEXT PRIMARY KEY,
        created_ns INTEGER NOT NULL,
        ttl_ns INTEGER NOT NULL,
        ending INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE networks (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created_ns INTEGER NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    """,
]


class Database:
    """The engine's database; one per data root, used from one thread.

    A backup is kept before a migration (`state/backups.py`).

    Raises:
        Unavailable: the file is damaged, or cannot be read or migrated, or was written by a newer
            Sampan; nothing has been changed, and the hint is the way out.
    """

    def __init__(self, path: str, migrations: Sequence[str] = MIGRATIONS) -> None:
        self.path = path
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        except sqlite3.Error as error:
            raise self.unreadable(error) from error
        try:
            self._open(migrations)
        except (sqlite3.Error, OSError) as error:
            self._connection.close()
            raise self.unreadable(error) from error
        except BaseException:
            self._connection.close()
            raise

    def _open(self, migrations: Sequence[str]) -> None:
        os.chmod(self.path, 0o600)
        self._connection.execute("PRAGMA busy_timeout = 5000")
        self._check()
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._migrate(migrations)
        self._reserve()

    def _check(self) -> None:
        """Read it through; some milliseconds. Rather no engine than one with half of its containers."""
        ((found,), *_) = self.read("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(str(found).replace("\n", ": "))

    def unreadable(self, reason: object) -> Unavailable:
        """The refusal of a file that means nothing, with the ways out."""
        backup = backups.newest(self.path)
        restore = (
            f"put {backup}, from before the last migration, in its place; or " if backup else ""
        )
        return Unavailable(
            f"the database {self.path} cannot be used: {reason}",
            hint=f"{restore}mend a copy with `sqlite3 COPY .recover`; or move it away together with "
            f"{self.path}-wal, and the engine knows no container, image or volume any more and ends "
            "the containers that still run",
        )

    def close(self) -> None:
        self._connection.close()

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query."""
        return self._connection.execute(sql, parameters).fetchall()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one change in a transaction of its own (or in the open one); return the rows changed."""
        return self._connection.execute(sql, parameters).rowcount

    def write(self, change: Callable[[Database], Result]) -> Result:
        """Run `change` in one transaction: all of it or, when it raises, nothing of it."""
        with self.transaction():
            return change(self)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _reserve(self) -> None:
        """Keep blocks for the write-ahead log and the file, so that rows can be deleted on a full
        disk: that is what makes room.

        The log is not cut while it is open; once it is that long its blocks are used again.
        """
        self.read("PRAGMA user_version")  # the log is there after a read
        for path, size in (
            (f"{self.path}-wal", RESERVED_LOG_BYTES),
            (self.path, os.stat(self.path).st_size + RESERVED_GROWTH_BYTES),
        ):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                reserve(fd, size)
            except OSError as error:
                if error.errno not in (errno.EDQUOT, errno.ENOSPC, errno.EOPNOTSUPP):
                    raise
            finally:
                os.close(fd)

    def _migrate(self, migrations: Sequence[str]) -> None:
        (version,) = self.read("PRAGMA user_version")[0]
        if version > len(migrations):
            raise Unavailable(
                f"{self.path} has schema version {version}, this Sampan knows {len(migrations)}",
                hint="run the newer Sampan that wrote it, or choose another --data-root",
            )
        if 0 < version < len(migrations):
            backups.keep(self._connection, self.path, version)
        for number, script in enumerate(migrations[version:], start=version + 1):
            # executescript() commits what is open, so the transaction is part of the script.
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;"
            )
