"""The world of a network test, and bridge networks in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sampan.network.bridge import BridgeNetwork
from support.world import World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def bridge(world: World) -> Iterator[Callable[..., BridgeNetwork]]:
    """Makes bridge networks on the host, ready for containers."""
    made: list[BridgeNetwork] = []

    def make(**options: object) -> BridgeNetwork:
        network = BridgeNetwork(**options)  # type: ignore[arg-type]
        made.append(network)
        with world.host.entered():
            network.ensure()
        return network

    yield make
    for network in made:
        network.close()
