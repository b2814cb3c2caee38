"""Leases: their life, without an engine around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from sampan.engine import leases as module
from sampan.engine.events import EventBus
from sampan.engine.leases import Leases
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.state.database import Database
from sampan.state.leases import LeaseRows

HOUR = 3600 * 1_000_000_000


class Members:
    """What was made under leases; `left` is what cannot be removed."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.left: list[str] = []

    async def end(self, name: str) -> Sequence[str]:
        self.ended.append(name)
        await asyncio.sleep(0)
        return list(self.left)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(str(tmp_path / "engine.db"))


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Members:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.005)
    return Members()


@pytest.fixture
async def leases(database: Database, members: Members) -> AsyncIterator[Leases]:
    leases = opened(database, members)
    yield leases
    await leases.close()
    database.close()


def opened(database: Database, members: Members) -> Leases:
    leases = Leases(LeaseRows(database), EventBus())
    leases.end_members = members.end
    leases.open()
    return leases


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


def expire(leases: Leases, name: str) -> None:
    """As if its time had run out."""
    leases._run_out(leases.get(name))


async def test_not_renewed_it_ends(leases: Leases, members: Members) -> None:
    lease = leases.create("ci", HOUR)
    first_due_s = lease.due_s
    await asyncio.sleep(0.01)
    assert leases.renew("ci").due_s > first_due_s
    expire(leases, "ci")
    with pytest.raises(Conflict, match="lease ci is ending"):
        leases.renew("ci")
    await lease.gone.wait()
    assert members.ended == ["ci"]
    with pytest.raises(NotFound, match="No such lease: ci"):
        leases.get("ci")


async def test_held_by_connections(leases: Leases, members: Members) -> None:
    lease = leases.hold("ci", HOUR)
    assert leases.hold("ci") is lease
    assert lease.timer is None
    leases.renew("ci")
    assert lease.timer is None
    leases.let_go(lease, by_client=True)
    assert not lease.ending
    leases.let_go(lease, by_client=True)
    assert lease.ending
    await lease.gone.wait()
    assert members.ended == ["ci"]


async def test_an_engine_that_closes_ends_none(
    leases: Leases, members: Members, database: Database
) -> None:
    lease = leases.hold("ci", HOUR)
    leases.let_go(lease, by_client=False)
    await leases.close()
    following = opened(database, members)
    assert not following.get("ci").ending
    assert (following.left_s(following.get("ci")) or 0) > 3590
    await following.close()
    assert members.ended == []


async def test_what_was_ending_goes_on(
    leases: Leases, members: Members, database: Database
) -> None:
    members.left = ["volume data: in use"]
    leases.create("ci", HOUR)
    with pytest.raises(Conflict, match="not yet gone: volume data: in use"):
        await leases.remove("ci")
    await leases.close()
    members.left = []
    following = opened(database, members)
    assert following.get("ci").ending
    await following.get("ci").gone.wait()
    await following.close()
    assert LeaseRows(database).all() == []


async def test_what_is_left_is_tried_again(leases: Leases, members: Members) -> None:
    members.left = ["volume data: in use"]
    lease = leases.create("ci", HOUR)
    with pytest.raises(Conflict, match="not yet gone"):
        await leases.remove("ci")
    assert leases.get("ci").left == ["volume data: in use"]
    members.left = []
    await lease.gone.wait()
    leases.create("ci", HOUR)


async def test_what_is_being_made_is_waited_for(leases: Leases, members: Members) -> None:
    """A create that was under way when the lease ended leaves nothing behind."""
    lease = leases.create("ci", HOUR)
    with leases.joining("ci") as name:
        assert name == "ci"
        expire(leases, "ci")
        await until(lambda: len(members.ended) >= 3)
        assert not lease.gone.is_set()
        seen = len(members.ended)
    await lease.gone.wait()
    assert len(members.ended) > seen  # looked again when it was made


async def test_joining(leases: Leases) -> None:
    leases.create("ci", HOUR)
    with leases.joining() as name:
        assert name == ""
    with leases.labelled({"a": "b"}) as labels:
        assert labels == {"a": "b"}
    with leases.labelled({"dev.sampan.lease": "ci"}) as labels:
        assert labels["sampan.lease"] == "ci"
    token = module.current.set("ci")
    with leases.labelled(None) as labels:
        assert labels == {"sampan.lease": "ci"}
    module.current.reset(token)
    with pytest.raises(InvalidArgument, match="No such lease"), leases.joining("other"):
        pass


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "x" * 129])
async def test_bad_names(leases: Leases, name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid lease name"):
        leases.create(name)


async def test_refused(leases: Leases) -> None:
    leases.create("ci")
    with pytest.raises(Conflict, match="already in use"):
        leases.create("ci")
    for ttl_ns in (-1, 1, 1 << 63):
        with pytest.raises(InvalidArgument, match="invalid TTL"):
            leases.create("other", ttl_ns)
