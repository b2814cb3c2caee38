"""The rows that outlive containers: found by name and ID, and within their limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.state.database import Database
from sampan.state.events import Limits
from sampan.state.post_mortems import RUNS_PER_CONTAINER, PostMortems


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"{tmp_path}/engine.db")


def test_found_by_name_and_id(database: Database) -> None:
    rows = PostMortems(database, Limits())
    rows.put("aa11", "web", 1, b"first")
    rows.put("aa22", "web", 2, b"second")
    rows.put("bb11", "worker", 3, b"third")
    rows.put("bb11", "worker", 3, b"third, again")
    assert rows.of("web") == [b"second", b"first"]
    assert rows.of("web", limit=1) == [b"second"]
    assert rows.of("aa") == []
    assert rows.beginning("aa") == ["aa11", "aa22"]
    assert rows.beginning("aa1") == rows.beginning("aa11") == ["aa11"]
    assert rows.beginning("zz") == rows.beginning("%") == []
    assert rows.of("", "aa11") == [b"first"]
    assert rows.of("new-name", "bb11") == [b"third, again"]
    assert rows.of("zz") == []


def test_runs_of_one_container(database: Database) -> None:
    """One that restarts for ever has its last runs, and drives nothing out."""
    rows = PostMortems(database, Limits())
    rows.put("other", "other", 0, b"x")
    for number in range(100):
        rows.put("aa", "loop", number, str(number).encode())
    kept = [int(record) for record in rows.of("loop")]
    assert kept == list(range(99, 99 - RUNS_PER_CONTAINER, -1))
    assert rows.of("other") == [b"x"]


def test_by_size_and_age(database: Database) -> None:
    """The oldest go first, also those that a former process wrote."""
    first = PostMortems(database, Limits(size_bytes=100_000))
    for number in range(80):
        first.put(f"{number:04x}", "n", number, bytes(1000))
    rows = PostMortems(database, Limits(size_bytes=100_000))
    for number in range(80, 300):
        rows.put(f"{number:04x}", "n", number, bytes(1000))
    kept = len(rows.of("n"))
    assert 30 <= kept <= 100
    assert rows.of("", f"{299:04x}") == [bytes(1000)]
    assert rows.of("", "0000") == []
    rows.limits = Limits(size_bytes=20_000)
    rows.prune(now_ns=300)
    assert len(rows.of("n")) <= 20
    rows.put("ffff", "n", 400, b"new")
    rows.limits = Limits(age_s=1e-7)
    rows.prune(now_ns=450)
    assert rows.of("n") == [b"new"]
