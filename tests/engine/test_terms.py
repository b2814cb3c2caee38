"""Terms of containers: what annotations and labels mean."""

from __future__ import annotations

import pytest

from sampan.engine import terms
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.engine.terms import Dependency, OnUnhealthy, Terms
from sampan.errors import InvalidArgument

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "span"),
    [("90", 90 * SECOND), ("1h30m", 5400 * SECOND), ("1.5s", 3 * SECOND // 2), ("0", 0)],
)
def test_spans(text: str, span: int) -> None:
    assert terms.parse_span("ttl", text) == span


@pytest.mark.parametrize("text", ["", "-1", "soon", "1d", "1h-", "9" * 40, "999999999h"])
def test_no_spans(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid ttl"):
        terms.parse_span("ttl", text)


def test_after() -> None:
    assert terms.parse_after("db:healthy,/cache") == (Dependency("db", True), Dependency("cache"))
    assert terms.parse_after("") == ()


@pytest.mark.parametrize("text", [",", "db,", "db:", "db:started", ":healthy", "db,db:healthy"])
def test_bad_after(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid after"):
        terms.parse_after(text)


def test_on_unhealthy() -> None:
    assert terms.parse_on_unhealthy("restart") == OnUnhealthy("restart", terms.DEFAULT_BUDGET)
    assert terms.parse_on_unhealthy("restart:2") == OnUnhealthy("restart", 2)
    assert terms.parse_on_unhealthy("stop").action == "stop"


@pytest.mark.parametrize("text", ["", "kill", "restart:", "restart:0", "restart:-1", "stop:2"])
def test_bad_on_unhealthy(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid on-unhealthy"):
        terms.parse_on_unhealthy(text)


def test_an_annotation_goes_before_a_label() -> None:
    config = ContainerConfig(labels={"sampan.ttl": "1s", "dev.sampan.lease": "ci", "other": "x"})
    host = HostConfig(annotations={"sampan.ttl": "2s"})
    assert terms.asked(config, host) == Terms(ttl_ns=2 * SECOND, lease="ci")
    assert terms.asked(ContainerConfig(), HostConfig()) is terms.NONE
    assert terms.asked(ContainerConfig(labels={"a": "b"}), HostConfig()) is terms.NONE
