"""The database: migrations, transactions."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from sampan.errors import Unavailable
from sampan.state.database import MIGRATIONS, Database


def test_migrates_once(tmp_path: Path) -> None:
    """Each migration runs once, in order; a second open changes nothing."""
    path = str(tmp_path / "db")
    first = Database(path, ["CREATE TABLE a (x)"])
    first.execute("INSERT INTO a VALUES (1)")
    first.close()
    second = Database(path, ["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y"])
    assert second.read("SELECT x, y FROM a") == [(1, None)]
    assert second.read("PRAGMA user_version") == [(2,)]
    second.close()


def test_failed_migration_leaves_nothing(tmp_path: Path) -> None:
    """A migration is one transaction."""
    path = str(tmp_path / "db")
    with pytest.raises(sqlite3.Error):
        Database(path, ["CREATE TABLE a (x); CREATE TABLE a (x)"])
    database = Database(path, ["CREATE TABLE a (x)"])
    assert database.read("SELECT * FROM a") == []
    database.close()


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """An older Sampan does not touch what a newer one wrote."""
    path = str(tmp_path / "db")
    Database(path, ["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).close()
    with pytest.raises(Unavailable, match="schema version 2, this Sampan knows 1"):
        Database(path, ["CREATE TABLE a (x)"])


def test_write_is_all_or_nothing(tmp_path: Path) -> None:
    """What a change did before it raised is not there."""
    database = Database(str(tmp_path / "db"))

    def change(db: Database) -> None:
        db.execute("INSERT INTO settings VALUES ('a', '1')")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        database.write(change)
    assert database.read("SELECT * FROM settings") == []
    database.write(lambda db: db.execute("INSERT INTO settings VALUES ('a', '1')"))
    assert database.read("SELECT * FROM settings") == [("a", "1")]
    database.close()


def test_only_the_owner_reads(tmp_path: Path) -> None:
    """Environment variables of containers hold secrets."""
    database = Database(str(tmp_path / "db"))
    assert os.stat(database.path).st_mode & 0o077 == 0
    assert len(MIGRATIONS) >= 1
    database.close()
