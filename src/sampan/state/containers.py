"""Rows of containers: what was asked for, and the last thing known about how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.errors import Unavailable
from sampan.state.database import Database


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """`record` is the engine's own JSON; the columns beside it are what has to be unique."""

    id: str
    name: str
    created_ns: int
    record: bytes


class ContainerRows:
    """The table `containers`.

    Each method is one transaction, so a container is on disk before the client hears of it, and a
    change is there whole or not at all.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[ContainerRow]:
        """Every row, oldest first."""
        rows = self._database.read(
            "SELECT id, name, created_ns, record FROM containers ORDER BY created_ns, id"
        )
        return [ContainerRow(*row) for row in rows]

    def unreadable(self, row: ContainerRow, reason: object) -> Unavailable:
        """The refusal of a row that cannot be decoded, with the ways out."""
        return self._database.unreadable(f"container {row.name} ({row.id}): {reason}")

    def insert(self, row: ContainerRow) -> None:
        """Add a container.

        Raises:
            sqlite3.IntegrityError: the ID or the name is taken.
        """
        self._database.execute(
            "INSERT INTO containers (id, name, created_ns, record) VALUES (?, ?, ?, ?)",
            (row.id, row.name, row.created_ns, row.record),
        )

    def update(self, row: ContainerRow) -> None:
        """Replace name and record of a container; without effect when it is gone."""
        self._database.execute(
            "UPDATE containers SET name = ?, record = ? WHERE id = ?",
            (row.name, row.record, row.id),
        )

    def delete(self, container_id: str) -> None:
        """Remove a container's row; without effect when it is gone."""
        self._database.execute("DELETE FROM containers WHERE id = ?", (container_id,))
