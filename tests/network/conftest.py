"""The world of a network test, and bridge networks in it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest

from sampan.network.bridge import BridgeNetwork
from sampan.network.bridge_wishes import BridgeWishes
from support.engines import SampanEngine, running
from support.world import World

WISHES = {field.name for field in fields(BridgeWishes)}


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
        wishes = {key: options.pop(key) for key in list(options) if key in WISHES}
        network = BridgeNetwork(wishes=BridgeWishes(**wishes), **options)  # type: ignore[arg-type]
        made.append(network)
        with world.host.entered():
            network.ensure()
        return network

    yield make
    for network in made:
        network.close()


@pytest.fixture
def engine(world: World, session_directory: str, session_token: str) -> Iterator[SampanEngine]:
    """A daemon on the world's host, with `busybox:test`; the test runs there, too."""
    token = session_token + secrets.token_hex(1)
    with world.host.entered():
        yield from running(SampanEngine(f"{session_directory}/{token}", token))
