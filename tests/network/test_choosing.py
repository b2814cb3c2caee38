"""Two engines on one machine never choose the same subnet."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from itertools import combinations

import pytest

from sampan.network.choosing import LOCK, choosing_subnet
from support.engines import SampanEngine
from support.netns import wait_for
from support.world import World

pytestmark = pytest.mark.root
EACH = 8


@pytest.fixture
def engines(
    world: World, session_directory: str, session_token: str
) -> Iterator[list[SampanEngine]]:
    """Two, not started."""
    tokens = [session_token + secrets.token_hex(1) + end for end in "ab"]
    made = [SampanEngine(f"{session_directory}/{token}", token) for token in tokens]
    with world.host.entered():
        try:
            yield made
        finally:
            for engine in made:
                engine.stop()


def test_at_the_same_instant(world: World, engines: list[SampanEngine]) -> None:
    """Their default bridges when both start, and networks that both make."""
    barrier = threading.Barrier(2)

    def work(engine: SampanEngine) -> list[str]:
        with world.host.entered():
            barrier.wait()
            engine.start()
            found = [engine.get("/networks/bridge").json["IPAM"]["Config"][0]["Subnet"]]
            for number in range(EACH):
                barrier.wait()
                name = f"net{number}"
                assert engine.post("/networks/create", {"Name": name}).status == 201
                found.append(engine.get(f"/networks/{name}").json["IPAM"]["Config"][0]["Subnet"])
            barrier.wait()  # what is removed may be chosen again
            for number in range(EACH):
                assert engine.delete(f"/networks/net{number}").status == 204
        return found

    with ThreadPoolExecutor(2) as executor:
        subnets = [ip_network(text) for found in executor.map(work, engines) for text in found]
    assert len(subnets) == 2 * (EACH + 1)
    assert not [pair for pair in combinations(subnets, 2) if pair[0].overlaps(pair[1])]
    wait_for(lambda: not any(name.startswith("br-") for name in world.links()), "bridges to go")


def test_who_holds_the_lock_for_ever_stops_nobody() -> None:
    with choosing_subnet():
        pass
    fd = os.open(LOCK, os.O_WRONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with choosing_subnet(patience_s=0.05):
            pass
    finally:
        os.close(fd)


def test_others_wait_for_who_chooses(world: World) -> None:
    entered = threading.Event()

    def choose() -> None:
        with world.host.entered(), choosing_subnet():
            entered.set()

    with world.host.entered():
        with choosing_subnet():
            other = threading.Thread(target=choose)
            other.start()
            assert not entered.wait(0.2)
        assert entered.wait(30)
        other.join()
