"""Faults: every case ends with nothing left of what failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.engines import SampanEngine
from support.waiting import wait_for


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/faults" in item.nodeid:
            item.add_marker(pytest.mark.root)


@pytest.fixture
def engine(sampan: SampanEngine) -> Iterator[SampanEngine]:
    """The shared engine; after the case, and the removal of its containers, it holds nothing."""
    yield sampan
    sampan.remove_containers()
    expect_nothing(sampan)


def expect_nothing(engine: SampanEngine) -> None:
    """Wait until nothing is left of any container (the kernel takes network namespaces down late)."""
    try:
        wait_for(
            lambda: not any(engine.remains().values()), "containers to be gone without a trace"
        )
    except AssertionError as error:
        raise AssertionError(f"{error}: {engine.remains()}") from None
