"""The rules of an engine's bridges: one more, one less, and what others do to them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sampan.network.firewall import Firewall
from sampan.network.rules import BridgeRules
from support.world import World

pytestmark = pytest.mark.root

MANY = 300
FIRST = BridgeRules("sampan0", ("172.30.0.0/16",))


@pytest.fixture
def firewall(world: World) -> Iterator[Firewall]:
    firewall = Firewall(table="sampan-test")
    with world.host.entered():
        yield firewall
        firewall.remove()
        firewall.close()


FURTHER = 2  # rules for the further bridges of all networks


def of(number: int) -> BridgeRules:
    subnets = (f"10.{number >> 8}.{number & 255}.0/24", f"fd00:0:0:{number:x}::/64")
    source = "198.51.100.2" if number % 3 == 0 else ""
    return BridgeRules(f"br-{number}", subnets, source=source, internal=number % 7 == 0)


def forward_rules(world: World) -> list[str]:
    return [line for line in world.run("iptables", "-S", "FORWARD").splitlines() if "-A" in line]


def without_handles(text: str) -> list[str]:
    """A listing's lines, whose elements come in any order."""
    return sorted(part.strip() for line in text.splitlines() for part in line.split(","))


def test_bridges_added_one_by_one_are_those_of_one_transaction(
    world: World, firewall: Firewall
) -> None:
    """Subnets side by side, with and without a source, of both families; and all of them go again."""
    world.run("iptables", "-P", "FORWARD", "DROP")
    firewall.install([FIRST])
    empty = world.run("nft", "list", "table", "inet", "sampan-test")
    for number in range(MANY):
        firewall.add(of(number))
    assert firewall.intact()
    one_by_one = world.run("nft", "list", "table", "inet", "sampan-test")
    assert len(forward_rules(world)) == 2 * (MANY + 1) + FURTHER
    firewall.install([FIRST, *map(of, range(MANY))])
    at_once = world.run("nft", "list", "table", "inet", "sampan-test")
    assert without_handles(one_by_one) == without_handles(at_once)
    for number in range(MANY):
        firewall.drop(of(number).bridge)
    assert firewall.intact()
    assert world.run("nft", "list", "table", "inet", "sampan-test") == empty
    assert len(forward_rules(world)) == 2 + FURTHER


def test_the_last_and_the_first_subnet_there_are(world: World, firewall: Firewall) -> None:
    """A range that ends where the numbers do has no end in the kernel."""
    firewall.install([FIRST])
    edges = BridgeRules("br-edge", ("255.255.255.0/24", "0.0.0.0/8", "ff00::/8"))
    firewall.add(edges)
    shown = world.run("nft", "list", "table", "inet", "sampan-test")
    assert all(subnet.removesuffix("/8").removesuffix("/24") in shown for subnet in edges.subnets)
    firewall.drop("br-edge")
    assert "255.255.255.0" not in world.run("nft", "list", "table", "inet", "sampan-test")


def test_rules_of_others_are_not_taken_for_ours(world: World, firewall: Firewall) -> None:
    """Who restores a saved set of rules numbers them anew: ours may be another's number by then."""
    world.run("iptables", "-P", "FORWARD", "DROP")
    firewall.install([FIRST])
    firewall.add(of(1))
    world.run("nft", "delete", "table", "ip", "filter")
    world.run("iptables", "-P", "FORWARD", "DROP")
    for port in range(20):
        world.run("iptables", "-A", "FORWARD", "-p", "tcp", "--dport", str(port + 1), "-j", "DROP")
    firewall.drop("br-1")
    assert len(forward_rules(world)) == 20
    assert not firewall.intact()
    firewall.install([FIRST])
    assert firewall.intact()
    assert len(forward_rules(world)) == 22 + FURTHER


def test_another_engines_rules_stay(world: World, firewall: Firewall) -> None:
    """Two engines on one machine: neither the flush nor the end of one is the other's."""
    world.run("iptables", "-P", "FORWARD", "DROP")
    other = Firewall(table="sampan-other")
    firewall.install([FIRST])
    other.install([BridgeRules("sampan1", ("172.29.0.0/16",))])
    world.run("nft", "delete", "table", "inet", "sampan-test")
    assert (firewall.intact(), other.intact()) == (False, True)
    firewall.install([FIRST])
    other.remove()
    other.close()
    assert firewall.intact()
    assert [rule for rule in forward_rules(world) if "sampan1" in rule] == []
