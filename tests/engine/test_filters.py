"""List, event and prune filters."""

from __future__ import annotations

import pytest

from engine.builders import make_container
from sampan.engine import filters
from sampan.engine.container import State, Status
from sampan.engine.events import Event
from sampan.engine.model import ContainerConfig
from sampan.errors import InvalidArgument

RUNNING = make_container("aa", Status.RUNNING, name="web", created_ns=3)
EXITED = make_container("bb", name="job", created_ns=2)
EXITED.record.state = State(status=Status.EXITED, exit_code=3)
CREATED = make_container(
    "cc", name="new", created_ns=1, config=ContainerConfig(labels={"tier": "db", "x": ""})
)
ALL = [CREATED, RUNNING, EXITED]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ["web"]),
        ({"all": True}, ["web", "job", "new"]),
        ({"limit": 2}, ["web", "job"]),
        ({"filters": {"status": ["exited"]}}, ["job"]),
        ({"filters": {"status": ["exited", "created"]}}, ["job", "new"]),
        ({"filters": {"exited": ["3"]}}, ["job"]),
        ({"filters": {"exited": ["0"]}}, []),
        ({"all": True, "filters": {"name": ["e"]}}, ["web", "new"]),
        ({"all": True, "filters": {"name": ["^/new$"]}}, ["new"]),
        ({"all": True, "filters": {"id": ["bb"]}}, ["job"]),
        ({"all": True, "filters": {"label": ["tier"]}}, ["new"]),
        ({"all": True, "filters": {"label": ["tier=db", "x"]}}, ["new"]),
        ({"all": True, "filters": {"label": ["tier=web"]}}, []),
        ({"all": True, "filters": {"since": ["new"]}}, ["web", "job"]),
        ({"all": True, "filters": {"before": ["web"]}}, ["job", "new"]),
        ({"all": True, "filters": {"health": ["none"]}}, ["web", "job", "new"]),
        ({"all": True, "filters": {"health": ["healthy"]}}, []),
    ],
)
def test_select(arguments: dict[str, object], names: list[str]) -> None:
    """Filters narrow the list, which is newest first."""
    assert [c.name for c in filters.select(ALL, **arguments)] == names  # type: ignore[arg-type]


def test_select_by_ancestor() -> None:
    """An ancestor is what its value was resolved to."""
    ids = {"busybox": frozenset({RUNNING.image[0]})}
    chosen = filters.select(ALL, filters={"ancestor": ["busybox"]}, image_ids=ids)
    assert [c.name for c in chosen] == ["web"]
    assert filters.select(ALL, filters={"ancestor": ["alpine"]}, image_ids=ids) == []


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"nosuch": ["1"]}, "invalid filter 'nosuch'"),
        ({"status": ["sleeping"]}, "invalid filter 'status=sleeping'"),
        ({"exited": ["one"]}, "invalid filter 'exited=one'"),
        ({"health": ["fine"]}, "Unrecognised filter value for health: fine"),
        ({"since": ["ghost"]}, "No such container: ghost"),
        ({"name": ["("]}, "invalid filter 'name=\\(': "),
    ],
)
def test_select_refuses(wanted: dict[str, list[str]], text: str) -> None:
    """What is no filter is refused by name."""
    with pytest.raises(InvalidArgument, match=f"^{text}"):
        filters.select(ALL, all=True, filters=wanted)


EVENT = Event(
    number=1,
    type="container",
    action="exec_start: sh",
    id="aa" * 32,
    attributes={"name": "web", "image": "busybox:latest", "tier": "db"},
    time_ns=1,
)


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({}, True),
        ({"type": ["container"]}, True),
        ({"type": ["image", "network"]}, False),
        ({"event": ["exec_start"]}, True),
        ({"event": ["start"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["aaaa"]}, True),
        ({"container": ["job"]}, False),
        ({"image": ["busybox"]}, True),
        ({"image": ["alpine"]}, False),
        ({"label": ["tier=db"]}, True),
        ({"label": ["tier=web"]}, False),
        ({"network": ["web"]}, False),
        ({"container": ["web"], "event": ["die"]}, False),
    ],
)
def test_event_matches(wanted: dict[str, list[str]], passes: bool) -> None:
    """An event passes when every named filter has a value that fits."""
    assert filters.event_matches(EVENT, wanted) is passes


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("1700000000.000000001", 1_700_000_000_000_000_001),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000_000_000_000),
        ("10m", 1_699_999_400_000_000_000),
        ("1h30m", 1_699_994_600_000_000_000),
    ],
)
def test_timestamp(text: str, nanoseconds: int) -> None:
    """Unix seconds, RFC 3339 to the nanosecond, and durations before now."""
    assert filters.timestamp_ns(text, now_ns=1_700_000_000_000_000_000) == nanoseconds


def test_timestamp_refuses() -> None:
    """Anything else is refused with the text."""
    with pytest.raises(InvalidArgument, match="yesterday"):
        filters.timestamp_ns("yesterday")


def test_prunable() -> None:
    """Prune takes labels, their absence and an age."""
    assert filters.prunable(CREATED, {"label": ["tier"]})
    assert not filters.prunable(CREATED, {"label!": ["tier"]})
    assert filters.prunable(CREATED, {"until": ["1h"]})
    assert not filters.prunable(make_container("dd", created_ns=1 << 62), {"until": ["1h"]})
    with pytest.raises(InvalidArgument, match="invalid filter 'dangling'"):
        filters.prunable(CREATED, {"dangling": ["1"]})
