"""The state table and the waiters."""

from __future__ import annotations

import msgspec
import pytest

from engine.builders import make_container, make_record
from sampan.engine.container import LIFE, Event, Record, Status
from sampan.errors import Conflict


def test_every_status_has_a_row() -> None:
    """No status is without a way out but those that end in removal."""
    assert set(LIFE) == set(Status)
    for row in LIFE.values():
        assert set(row.values()) <= set(Status)


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ([Event.STARTED, Event.ENDED, Event.STARTED], Status.RUNNING),
        ([Event.STARTED, Event.PAUSED, Event.UNPAUSED], Status.RUNNING),
        ([Event.STARTED, Event.PAUSED, Event.ENDED], Status.EXITED),
        ([Event.START_FAILED], Status.CREATED),
        ([Event.STARTED, Event.RESTART_DUE, Event.STARTED], Status.RUNNING),
        ([Event.STARTED, Event.RESTART_DUE, Event.RESTART_DROPPED], Status.EXITED),
        ([Event.STARTED, Event.ENDED, Event.RESTART_DUE, Event.START_FAILED], Status.EXITED),
        ([Event.STARTED, Event.ENDED, Event.REMOVAL, Event.REMOVAL_FAILED], Status.DEAD),
    ],
)
def test_lives(path: list[Event], end: Status) -> None:
    """Ways through the table."""
    container = make_container()
    for event in path:
        container.move(event)
    assert container.state.status is end
    assert container.ended.is_set() is (end not in (Status.RUNNING, Status.PAUSED))


def test_impossible() -> None:
    """What the table does not have is a conflict that names both."""
    with pytest.raises(Conflict, match="is created, so it cannot be paused"):
        make_container().move(Event.PAUSED)


async def test_waiters() -> None:
    """Waiters are answered by condition; a cancelled one is forgotten."""
    container = make_container(status=Status.RUNNING)
    stopped, removed = container.wait("not-running"), container.wait("removed")
    cancelled = container.wait("next-exit")
    cancelled.cancel()
    container.state.exit_code = 7
    container.resolve("not-running", "next-exit")
    assert (await stopped).exit_code == 7
    assert not removed.done()
    container.fail_waiters()
    assert (await removed).exit_code == 7


async def test_wait_when_ended() -> None:
    """`not-running` is answered at once where nothing runs; `next-exit` waits for the next one."""
    container = make_container()
    assert container.wait("not-running").done()
    assert not container.wait("next-exit").done()


def test_record_survives_the_database() -> None:
    """A record is read back as it was written."""
    record = make_record()
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record
