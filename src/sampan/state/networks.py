"""Rows of networks: names, and what each was created with."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from sampan.state.database import Database


class SubnetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet that a network has; `asked`: the user named it. `kept`: name → address."""

    subnet: str
    ip_range: str = ""
    gateway: str = ""
    kept: dict[str, str] = {}
    asked: bool = True


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a network was created with, and the subnets that were chosen for it."""

    driver: str = "bridge"
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    subnets: list[SubnetRecord] = []
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    config_only: bool = False
    config_from: str = ""


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """A network: its ID, name, creation time (Unix ns) and record."""

    id: str
    name: str
    created_ns: int
    record: NetworkRecord


_decode = msgspec.json.Decoder(NetworkRecord).decode


class NetworkRows:
    """The table `networks`; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[NetworkRow]:
        """All networks, the oldest first."""
        rows = self._database.read(
            "SELECT id, name, created_ns, record FROM networks ORDER BY created_ns, id"
        )
        return [
            NetworkRow(identity, name, created_ns, _decode(record))
            for identity, name, created_ns, record in rows
        ]

    def insert(self, row: NetworkRow) -> None:
        """Add a network.

        Raises:
            sqlite3.IntegrityError: the ID or the name is taken.
        """
        self._database.execute(
            "INSERT INTO networks (id, name, created_ns, record) VALUES (?, ?, ?, ?)",
            (row.id, row.name, row.created_ns, msgspec.json.encode(row.record)),
        )

    def update(self, row: NetworkRow) -> None:
        """Write a network's record anew; without effect when it is gone."""
        self._database.execute(
            "UPDATE networks SET record = ? WHERE id = ?",
            (msgspec.json.encode(row.record), row.id),
        )

    def delete(self, identity: str) -> None:
        """Remove a network's row; without effect when it is gone."""
        self._database.execute("DELETE FROM networks WHERE id = ?", (identity,))
