"""The database: migrations, transactions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
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
    with pytest.raises(Unavailable, match="table a already exists"):
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


def test_a_backup_before_each_migration(tmp_path: Path) -> None:
    """As it was, what was still in the log included; the last three are kept."""
    path = str(tmp_path / "db")
    scripts = ["CREATE TABLE a (x)"]
    for version in range(1, 6):
        database = Database(path, scripts)
        database.execute("INSERT INTO a VALUES (?)", (version,))
        if version == 5:
            break
        leaving = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{version}"))
        database.close()  # the copy is what a kill would have left
        shutil.rmtree(tmp_path)
        os.rename(leaving, tmp_path)
        scripts.append(f"CREATE TABLE t{version} (x)")
    database.close()
    kept = tmp_path / "backups"
    assert sorted(os.listdir(kept)) == ["db.v2", "db.v3", "db.v4"]
    assert os.stat(kept / "db.v4").st_mode & 0o077 == 0
    shutil.copy(kept / "db.v3", path)
    restored = Database(path, scripts[:3])
    assert restored.read("SELECT x FROM a") == [(1,), (2,), (3,)]
    restored.close()


def test_no_room_for_the_backup(tmp_path: Path) -> None:
    """Nothing is migrated then, and the older Sampan still starts."""
    path = str(tmp_path / "db")
    Database(path, ["CREATE TABLE a (x)"]).close()
    (tmp_path / "backups").write_text("in the way")
    with pytest.raises(Unavailable, match="no backup could be kept"):
        Database(path, ["CREATE TABLE a (x)", "CREATE TABLE b (x)"])
    Database(path, ["CREATE TABLE a (x)"]).close()


def _scribble(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 3)


def _truncate(path: str) -> None:
    os.truncate(path, os.stat(path).st_size // 2)


def _replace(path: str) -> None:
    Path(path).write_bytes(b"this is no database at all\n" * 1000)


def _directory(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


@pytest.mark.parametrize("damage", [_scribble, _truncate, _replace, _directory])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[str], None]) -> None:
    """With its name and the ways out, and left as it is; the backup named among them, and good."""
    path = str(tmp_path / "db")
    scripts = ["CREATE TABLE a (x)", "CREATE TABLE b (x)"]
    first = Database(path, scripts[:1])
    with first.transaction():
        for number in range(20_000):
            first.execute("INSERT INTO a VALUES (?)", (f"row {number}",))
    first.close()
    Database(path, scripts).close()
    damage(path)
    before = None if os.path.isdir(path) else Path(path).read_bytes()
    with pytest.raises(Unavailable, match="cannot be used") as refused:
        Database(path, scripts)
    backup = f"{tmp_path}/backups/db.v1"
    assert path in refused.value.message and backup in refused.value.hint
    assert before is None or Path(path).read_bytes() == before
    shutil.rmtree(path, ignore_errors=True)
    for rest in (f"{path}-wal", f"{path}-shm"):
        Path(rest).unlink(missing_ok=True)
    shutil.copy(backup, path)
    restored = Database(path, scripts)
    assert restored.read("SELECT count(*) FROM a") == [(20_000,)]
    restored.close()


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
