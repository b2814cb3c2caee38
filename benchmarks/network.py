"""What an interface costs: making it, configuring it, and the kernel's clean-up behind it.

    python -m benchmarks.network [COUNT]

Works in network namespaces of its own, so it touches nothing of the machine; needs root.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial

sys.path.append(os.path.join(os.path.dirname(__file__), os.pardir, "tests"))

from sampan.linux import netlink
from sampan.network.bridge import BridgeNetwork
from support.netns import NetworkNamespace, wait_for
from support.world import World

BATCH = 40


def main(count: int) -> None:
    """Print one line a metric: median and 95th percentile in milliseconds."""
    world = World()
    network = BridgeNetwork()
    with world.host.entered():
        for name in ("bridge and rules, first time", "bridge and rules, again"):
            began = time.perf_counter()
            network.ensure()
            show(name, [time.perf_counter() - began])
    show("address from memory", [_timed(network, f"a{number}") for number in range(1000)])
    for number in range(1000):
        network.release(f"a{number}")
    made, configured, gone = _attach_and_leave(world, network, count)
    show("veth pair, on the host", made)
    show("addresses and routes, inside", configured)
    show(f"until {BATCH} pairs are gone, in the background", gone)
    show("deleting one pair explicitly (not done)", _delete(world, network))
    with world.host.entered():
        network.remove()
    world.close()


def _timed(network: BridgeNetwork, name: str) -> float:
    began = time.perf_counter()
    network.attach(name)
    return time.perf_counter() - began


def _attach(
    world: World, network: BridgeNetwork, name: str
) -> tuple[NetworkNamespace, list[float]]:
    space = NetworkNamespace()
    endpoint = network.allocate(name)
    with world.host.entered():
        began = time.perf_counter()
        netlink.create_veth(endpoint, netns_fd=space.fd)
        made = time.perf_counter() - began
    with space.entered():
        began = time.perf_counter()
        netlink.configure_inside([endpoint])
        configured = time.perf_counter() - began
    return space, [made, configured]


def _attach_and_leave(
    world: World, network: BridgeNetwork, count: int
) -> tuple[list[float], list[float], list[float]]:
    made, configured, gone = [], [], []
    for first in range(0, count, BATCH):
        before = world.links()
        spaces = []
        for number in range(first, first + BATCH):
            space, times = _attach(world, network, f"c{number}")
            spaces.append(space)
            made.append(times[0])
            configured.append(times[1])
        began = time.perf_counter()
        for space in spaces:
            space.close()
        wait_for(partial(_has_links, world, before), "the pairs are gone")
        gone.append(time.perf_counter() - began)
    return made, configured, gone


def _has_links(world: World, expected: list[str]) -> bool:
    return world.links() == expected


def _delete(world: World, network: BridgeNetwork) -> list[float]:
    times = []
    for number in range(20):
        space, _ = _attach(world, network, f"d{number}")
        attachment = network.attachment(f"d{number}")
        assert attachment is not None and attachment.endpoint is not None
        with world.host.entered():
            began = time.perf_counter()
            netlink.delete_link(attachment.endpoint.host_name)
            times.append(time.perf_counter() - began)
        space.close()
    return times


def show(name: str, times: Sequence[float]) -> None:
    """One line of the table."""
    late = sorted(times)[int(len(times) * 0.95)]
    print(f"{name:50} {statistics.median(times) * 1e3:8.3f} {late * 1e3:8.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
