"""Names and IDs of containers, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.builders import make_record
from sampan.engine.registry import Registry
from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure
from sampan.state.containers import ContainerRows
from sampan.state.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(str(tmp_path / "engine.db"))


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(ContainerRows(database), "/data/containers")


def add(registry: Registry, identity: str, name: str) -> None:
    record = make_record(identity, name=name)
    registry.reserve(name, record.id)
    registry.add(record)


def test_find(registry: Registry) -> None:
    """By ID, by name with or without slash, by unique prefix; dockerd's texts otherwise."""
    add(registry, "aab", "web")
    add(registry, "aac", "aabx")
    web = registry.find("web")
    assert registry.find("/web") is web
    assert registry.find(web.id) is web
    assert registry.find("aab") is web
    assert registry.find("aabx").name == "aabx"
    with pytest.raises(InvalidArgument, match="Multiple IDs found with provided prefix: aa"):
        registry.find("aa")
    for missing in ("nosuch", "", "ff"):
        with pytest.raises(NotFound, match=f"^No such container: {missing}$"):
            registry.find(missing)


def test_names_are_unique(registry: Registry) -> None:
    """A taken name is refused with its owner; a removed or renamed one is free."""
    add(registry, "aa", "web")
    owner = registry.find("web").id
    with pytest.raises(Conflict) as caught:
        registry.reserve("web", "bb")
    assert str(caught.value) == (
        f'Conflict. The container name "/web" is already in use by container "{owner}". You have '
        "to remove (or rename) that container to be able to reuse that name."
    )
    registry.reserve("site", owner)
    registry.rename(registry.find("web"), "site")
    registry.reserve("web", "bb")
    registry.remove(registry.find("site"))
    assert "site" not in registry


def test_survives(registry: Registry, database: Database) -> None:
    """A new daemon reads what the old one wrote."""
    add(registry, "aa", "web")
    container = registry.find("web")
    container.state.exit_code = 3
    registry.save(container)
    again = Registry(ContainerRows(database), "/data/containers")
    (loaded,) = again.load()
    assert loaded.record == container.record
    assert again.find("web") is loaded


def test_full_disk(
    registry: Registry, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A record that cannot be written: an error for what is asked, a log line for what has happened."""
    add(registry, "aa", "web")
    container = registry.find("web")
    pages = database.read("PRAGMA page_count")[0][0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    container.record.args = ["x" * 100_000]
    registry.save(container)
    assert "database or disk is full" in caplog.text
    registry.reserve("site", container.id)
    with pytest.raises(RuntimeFailure, match="container site cannot be written"):
        registry.rename(container, "site")
    assert registry.find("web") is container
    assert "site" not in registry
