"""Conformance cases run on `target`: ours and, with --oracle, dockerd, which has to pass them first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support.engines import Engine
from support.forwarding import visible_to

Reachable = Callable[..., None]


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
def no_volumes_left(target: Engine) -> Iterator[None]:
    """For a module that makes volumes: each of its cases leaves none."""
    yield
    target.remove_containers()
    for volume in target.get("/volumes").json["Volumes"] or ():
        assert target.delete(f"/volumes/{volume['Name']}").status == 204


@pytest.fixture
def only_sampan(target: Engine) -> None:
    """For behaviour that dockerd 20.10 does not have; the case says which."""
    if target.name != "sampan":
        pytest.skip("dockerd 20.10 does not have this")


@pytest.fixture
def reachable(target: Engine) -> Iterator[Reachable]:
    """Make addresses on the loopback interface the engine's, too: dockerd has one of its own."""
    assert target.process is not None
    pid = target.process.pid
    with ExitStack() as stack:

        def make(*addresses: str) -> None:
            if target.name == "dockerd":
                stack.enter_context(visible_to(pid, *addresses))

        yield make
