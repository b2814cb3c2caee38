"""Rows of volumes: names, and what each was created with."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from sampan.state.database import Database


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume was created with. `anonymous`: for one container, whose name nobody chose."""

    driver: str = "local"
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """A volume: its name, creation time (Unix ns) and record."""

    name: str
    created_ns: int
    record: VolumeRecord


_decode = msgspec.json.Decoder(VolumeRecord).decode


class VolumeRows:
    """The table `volumes`; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[VolumeRow]:
        rows = self._database.read("SELECT name, created_ns, record FROM volumes ORDER BY name")
        return [VolumeRow(name, created_ns, _decode(record)) for name, created_ns, record in rows]

    def insert(self, row: VolumeRow) -> None:
        """Add a volume.

        Raises:
            sqlite3.IntegrityError: the name is taken.
        """
        self._database.execute(
            "INSERT INTO volumes (name, created_ns, record) VALUES (?, ?, ?)",
            (row.name, row.created_ns, msgspec.json.encode(row.record)),
        )

    def delete(self, name: str) -> None:
        """Remove a volume's row; without effect when it is gone."""
        self._database.execute("DELETE FROM volumes WHERE name = ?", (name,))
