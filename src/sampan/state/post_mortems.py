"""Rows that outlive containers: how each run of each ended."""

from __future__ import annotations

import time

from sampan.state.database import Database
from sampan.state.events import Limits

RUNS_PER_CONTAINER = 20
"""So many last runs are kept of one container: one that restarts for ever drives nothing out."""
_AT_ONCE = 64


class PostMortems:
    """The table `post_mortems`, within limits. `record` is the engine's own JSON."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self.limits = limits
        self._size = self._size_of("SELECT length(record) FROM post_mortems")

    def put(self, container_id: str, name: str, finished_ns: int, record: bytes) -> None:
        """Add the record of a run, or replace it, and drop the container's oldest.

        Raises:
            sqlite3.Error: it cannot be written; nothing has changed.
        """

        def change(database: Database) -> int:
            freed = self._size_of(
                "DELETE FROM post_mortems WHERE container_id = ?1 AND (finished_ns = ?2"
                " OR finished_ns <= (SELECT finished_ns FROM post_mortems WHERE container_id = ?1"
                "  AND finished_ns <> ?2 ORDER BY finished_ns DESC LIMIT 1 OFFSET ?3))"
                " RETURNING length(record)",
                (container_id, finished_ns, RUNS_PER_CONTAINER - 1),
            )
            database.execute(
                "INSERT INTO post_mortems (container_id, finished_ns, name, record)"
                " VALUES (?, ?, ?, ?)",
                (container_id, finished_ns, name, record),
            )
            return freed

        self._size += len(record) - self._database.write(change)
        if self._size > self.limits.size_bytes:
            self._shrink()

    def of(self, name: str, container_id: str = "", *, limit: int = -1) -> list[bytes]:
        """The records of containers that had this name when they ended, and of the container with
        this ID; the last end first."""
        rows = self._database.read(
            "SELECT record FROM post_mortems WHERE name = ? OR container_id = ?"
            " ORDER BY finished_ns DESC LIMIT ?",
            (name, container_id, limit),
        )
        return [record for (record,) in rows]

    def beginning(self, prefix: str) -> list[str]:
        """The IDs that begin so: none, one, or two of many."""
        # An ID is of hex digits, all of which sort before "g".
        rows = self._database.read(
            "SELECT DISTINCT container_id FROM post_mortems"
            " WHERE container_id >= ?1 AND container_id < ?1 || 'g' LIMIT 2",
            (prefix,),
        )
        return [container_id for (container_id,) in rows]

    def prune(self, now_ns: int | None = None) -> None:
        """Drop what is older than the limit, and the oldest of what is too much."""
        now_ns = time.time_ns() if now_ns is None else now_ns
        self._size -= self._size_of(
            "DELETE FROM post_mortems WHERE finished_ns < ? RETURNING length(record)",
            (now_ns - int(self.limits.age_s * 1e9),),
        )
        while self._size > self.limits.size_bytes and self._shrink():
            pass

    def _shrink(self) -> int:
        """Drop some of the oldest; how many bytes that was."""
        freed = self._size_of(
            "DELETE FROM post_mortems WHERE (container_id, finished_ns) IN ("
            " SELECT container_id, finished_ns FROM post_mortems ORDER BY finished_ns LIMIT ?)"
            " RETURNING length(record)",
            (_AT_ONCE,),
        )
        self._size -= freed
        return freed

    def _size_of(self, sql: str, parameters: tuple[object, ...] = ()) -> int:
        """The sum of a statement's lengths."""
        return sum(length for (length,) in self._database.read(sql, parameters))
