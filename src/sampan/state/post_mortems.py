"""Rows that outlive containers: how each run of each ended."""

from __future__ import annotations

import time

from sampan.state.database import Database
from sampan.state.events import Limits

RUNS_PER_CONTAINER = 20
"""So many last runs are kept of one container: one that restarts for ever drives nothing out."""
_LOOK_EVERY = 64


class PostMortems:
    """The table `post_mortems`, within limits. `record` is the engine's own JSON."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self.limits = limits
        self._added = 0

    def put(self, container_id: str, name: str, finished_ns: int, record: bytes) -> None:
        """Add the record of a run, or replace it, and drop the container's oldest."""

        def change(database: Database) -> None:
            database.execute(
                "INSERT OR REPLACE INTO post_mortems (container_id, finished_ns, name, record)"
                " VALUES (?, ?, ?, ?)",
                (container_id, finished_ns, name, record),
            )
            database.execute(
                "DELETE FROM post_mortems WHERE container_id = ?1 AND finished_ns < ("
                " SELECT finished_ns FROM post_mortems WHERE container_id = ?1"
                " ORDER BY finished_ns DESC LIMIT 1 OFFSET ?2)",
                (container_id, RUNS_PER_CONTAINER - 1),
            )

        self._database.write(change)
        self._added += 1
        if self._added % _LOOK_EVERY == 0:
            self.prune()

    def of(self, reference: str, container_id: str = "", *, limit: int = -1) -> list[bytes]:
        """The records of containers that had this name when they ended, or whose ID begins so, and
        of the container `container_id`; the last end first."""
        # An ID is of hex digits, all of which sort before "g".
        rows = self._database.read(
            "SELECT record FROM post_mortems WHERE name = ?1"
            " OR (container_id >= ?1 AND container_id < ?1 || 'g') OR container_id = ?2"
            " ORDER BY finished_ns DESC LIMIT ?3",
            (reference, container_id, limit),
        )
        return [record for (record,) in rows]

    def prune(self, now_ns: int | None = None) -> None:
        """Drop what is older than the limit, and the oldest of what is too much."""
        now_ns = time.time_ns() if now_ns is None else now_ns
        self._database.execute(
            "DELETE FROM post_mortems WHERE finished_ns < ?",
            (now_ns - int(self.limits.age_s * 1e9),),
        )
        self._database.execute(
            "DELETE FROM post_mortems WHERE finished_ns <= ("
            " SELECT max(finished_ns) FROM ("
            "  SELECT finished_ns, sum(length(record)) OVER (ORDER BY finished_ns DESC) AS total"
            "  FROM post_mortems) WHERE total > ?)",
            (self.limits.size_bytes,),
        )
