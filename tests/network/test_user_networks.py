"""The user's networks over the daemon's death, and of many containers; pools and plans."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network

import pytest

from sampan.errors import InvalidArgument, Unavailable
from sampan.network import segments
from sampan.network.addressing import SubnetPlan, completed, plans_of
from sampan.network.machine import Machine
from sampan.network.pools import DEFAULT_POOLS, Pool, choose, unique_local_pool
from sampan.network.user_bridge import BridgeOptions, UserBridge
from support.command import run
from support.engines import IMAGE, SampanEngine
from support.netns import wait_for
from support.world import World

needs_root = pytest.mark.root


@pytest.mark.vm
@needs_root
def test_what_the_kernel_lost_is_put_back(world: World, engine: SampanEngine) -> None:
    """Bridge and cables deleted while no daemon runs; addresses and reach are as before."""
    assert engine.post("/networks/create", {"Name": "net"}).status == 201
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "net"}}
    ids = [engine.post("/containers/create", body).json["Id"] for _ in range(2)]
    for identity in ids:
        assert engine.post(f"/containers/{identity}/start").status == 204

    def places() -> list[str]:
        shown = [engine.get(f"/containers/{identity}/json").json for identity in ids]
        return [each["NetworkSettings"]["Networks"]["net"]["IPAddress"] for each in shown]

    before = places()
    bridge = "br-" + engine.get("/networks/net").json["Id"][:12]
    port = next(name for name in world.links() if name.startswith("veth"))
    engine.kill()
    world.run("ip", "link", "delete", bridge)
    world.run("ip", "link", "delete", port)
    engine.start()
    assert places() == before and "" not in before
    with world.host.entered():
        for address in before:
            world.run("ping", "-c", "1", "-W", "5", address)
    engine.remove_containers()
    assert engine.delete("/networks/net").status == 204
    wait_for(lambda: bridge not in world.links(), "the bridge is gone")
    wait_for(lambda: not any(name.startswith("veth") for name in world.links()), "the pairs to go")
    assert bridge not in world.run("nft", "list", "ruleset")


@pytest.mark.vm
@needs_root
def test_more_containers_than_a_bridge_has_ports(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network goes on in further bridges, and is found again."""
    monkeypatch.setattr(segments, "PORTS", 3)
    plans = [SubnetPlan("10.9.0.0/24", gateway="10.9.0.1")]

    def network() -> UserBridge:
        made = UserBridge("net", "ab" * 32, plans, BridgeOptions(), owner="x")
        with world.host.entered():
            made.ensure(Machine())
        return made

    first = network()
    with world.host.entered():
        spaces = [world.container(first, str(number)) for number in range(7)]
    assert len([name for name in world.links() if name.startswith(segments.PREFIX)]) == 2
    with spaces[0].entered():
        for number in range(1, 7):
            world_ping(f"10.9.0.{number + 2}")
    again = network()
    assert again.ports() == first.ports()
    with world.host.entered():
        again.remove()
    assert not [
        name for name in world.links() if name.startswith((segments.PREFIX, "smpcab", "br-"))
    ]


def world_ping(address: str) -> None:
    run(["ping", "-c", "1", "-W", "5", address])


def test_two_thousand_networks_find_room() -> None:
    taken = [ip_network("10.208.0.0/22"), ip_network("10.208.7.128/25")]
    for _ in range(2000):
        chosen = choose(DEFAULT_POOLS, 4, taken)
        assert not any(chosen.overlaps(other) for other in taken[:2])
        taken.append(chosen)
    assert len(set(taken)) == 2002


def test_an_exhausted_pool() -> None:
    pool = Pool(IPv4Network("10.9.0.0/30"), 30)
    with pytest.raises(Unavailable, match="all predefined address pools have been fully subnetted"):
        choose([pool], 4, [ip_network("10.9.0.0/30")])
    assert choose([unique_local_pool("x")], 6, []).prefixlen == 64


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"Subnet": "10.9"}, "invalid subnet 10.9: invalid CIDR block notation"),
        ({"Subnet": "10.9.0.7/24"}, "it should be 10.9.0.0/24"),
        ({"Subnet": "10.9.0.0/24", "Gateway": "10.8.0.1"}, "doesn't contain this address"),
        ({"Subnet": "10.9.0.0/24", "IPRange": "10.8.0.0/25"}, "must be a subset"),
        ({"Subnet": "10.9.0.0/24", "Gateway": "fd00::1"}, "parent subnet is an IPv4 block"),
        ({"Subnet": "10.9.0.0/31"}, "no room for a container"),
    ],
)
def test_subnets_that_cannot_be(config: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        plans_of([config])


def test_the_gateway_is_the_first_of_the_range() -> None:
    plan = completed(SubnetPlan("10.9.0.0/16", "10.9.5.0/30", kept=(("x", "10.9.5.0"),)))
    assert plan.gateway == "10.9.5.1"
    pool = plan.pool()
    assert [str(pool.take()) for _ in range(2)] == ["10.9.5.2", "10.9.5.3"]
    with pytest.raises(Unavailable, match="no available IPv4 addresses"):
        pool.take()
    assert str(pool.reserve("10.9.200.1")) == "10.9.200.1"
