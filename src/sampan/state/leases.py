"""Rows of leases: what must outlive the daemon of them. How long each has left is known to the engine alone."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.state.database import Database


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease: its name, creation time (Unix ns), and how long it lives unless renewed (ns).

    `ending`: what was made under it is being removed.
    """

    name: str
    created_ns: int
    ttl_ns: int
    ending: bool = False


class LeaseRows:
    """The table `leases`; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[LeaseRow]:
        rows = self._database.read("SELECT name, created_ns, ttl_ns, ending FROM leases")
        return [LeaseRow(name, created, ttl, bool(ending)) for name, created, ttl, ending in rows]

    def put(self, row: LeaseRow) -> None:
        """Add a lease, or replace it."""
        self._database.execute(
            "INSERT OR REPLACE INTO leases (name, created_ns, ttl_ns, ending) VALUES (?, ?, ?, ?)",
            (row.name, row.created_ns, row.ttl_ns, int(row.ending)),
        )

    def delete(self, name: str) -> None:
        """Remove a lease's row; without effect when it is gone."""
        self._database.execute("DELETE FROM leases WHERE name = ?", (name,))
