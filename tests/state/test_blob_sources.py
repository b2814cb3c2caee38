"""Where blobs were seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.state.blob_sources import BlobSources
from sampan.state.database import MIGRATIONS, Database

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(str(tmp_path / "engine.db"))
    yield opened
    opened.close()


def test_the_repository_seen_last_comes_first(database: Database) -> None:
    """Only those of the registry that is asked for."""
    sources = BlobSources(database)
    for repository in ("r.test/a", "r.test/b", "r.test:5000/c", "r.test/a"):
        sources.note([A, B], repository)
    assert sources.of(A, "r.test") == ["r.test/a", "r.test/b"]
    assert sources.of(B, "r.test:5000") == ["r.test:5000/c"]
    assert sources.of(B, "r") == []


def test_fifty_are_kept(database: Database) -> None:
    sources = BlobSources(database)
    for number in range(60):
        sources.note([A], f"r.test/{number}")
    found = sources.of(A, "r.test")
    assert (len(found), found[0]) == (50, "r.test/59")
    assert "r.test/9" not in found


def test_what_is_gone_is_forgotten(database: Database) -> None:
    sources = BlobSources(database)
    sources.note([A, B], "r.test/a")
    sources.note([A], "r.test/b")
    sources.forget(A, "r.test/b")
    assert sources.of(A, "r.test") == ["r.test/a"]
    sources.keep_only({B})
    assert (sources.of(A, "r.test"), sources.of(B, "r.test")) == ([], ["r.test/a"])


def test_a_database_of_the_first_schema_gets_the_table(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    old = Database(path, MIGRATIONS[:1])
    old.execute("INSERT INTO settings VALUES ('a', '1')")
    old.close()
    newer = Database(path)
    BlobSources(newer).note([A], "r.test/a")
    assert newer.read("SELECT * FROM settings") == [("a", "1")]
    assert BlobSources(newer).of(A, "r.test") == ["r.test/a"]
    newer.close()


def test_when_all_were_seen(database: Database) -> None:
    sources = BlobSources(database)
    sources.note([A], "r.test/a")
    first = sources.seen_ns({A}, "r.test/a")
    assert first > 0 and sources.seen_ns({A, B}, "r.test/a") == 0
    sources.note([B], "r.test/a")
    assert sources.seen_ns({A, B}, "r.test/a") == first
    assert sources.seen_ns({A, B}, "r.test/b") == sources.seen_ns(set(), "r.test/a") == 0
