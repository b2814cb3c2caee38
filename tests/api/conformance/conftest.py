"""Conformance cases run on `target`: ours and, with --oracle, dockerd, which has to pass them first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.engines import Engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "api/conformance" in item.nodeid:
            item.add_marker(pytest.mark.root)


@pytest.fixture(autouse=True)
def _no_containers_left(target: Engine) -> Iterator[None]:
    """Each case starts without containers and leaves none."""
    yield
    target.remove_containers()


@pytest.fixture
def only_sampan(target: Engine) -> None:
    """For behaviour that dockerd 20.10 does not have; the case says which."""
    if target.name != "sampan":
        pytest.skip("dockerd 20.10 does not have this")
