"""Subnets and addresses: plain values."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest

from sampan.errors import Conflict, InvalidArgument, Unavailable
from sampan.network.ipam import AddressPool, choose_subnet, parse_bridge_address


def pool(text: str = "172.30.0.1/16") -> AddressPool:
    return AddressPool(IPv4Interface(text))


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ([], "172.30.0.0/16"),
        (["0.0.0.0/0", "::/0", "fd00::/64"], "172.30.0.0/16"),
        (["172.17.0.0/16"], "172.30.0.0/16"),
        (["172.30.5.6/32"], "172.29.0.0/16"),
        (["172.16.0.0/12"], "192.168.0.0/20"),
        (["172.16.0.0/12", "192.168.1.20/24"], "192.168.16.0/20"),
        (["172.16.0.0/12", "192.168.0.0/16"], "10.192.0.0/20"),
    ],
)
def test_the_first_subnet_that_overlaps_nothing(taken: list[str], chosen: str) -> None:
    assert str(choose_subnet(taken)) == chosen


def test_no_subnet_left() -> None:
    with pytest.raises(Unavailable) as caught:
        choose_subnet(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])
    assert caught.value.hint and "--bip" in caught.value.hint


def test_addresses_come_in_turn_and_not_back_at_once() -> None:
    addresses = pool()
    first, second = addresses.take(), addresses.take()
    assert (str(first), str(second)) == ("172.30.0.2", "172.30.0.3")
    addresses.release(first)
    assert str(addresses.take()) == "172.30.0.4"


def test_a_small_subnet_is_used_up_and_comes_round() -> None:
    addresses = pool("10.9.0.1/29")
    taken = [addresses.take() for _ in range(5)]
    assert [int(address) & 7 for address in taken] == [2, 3, 4, 5, 6]
    with pytest.raises(Unavailable, match="no available IPv4 addresses"):
        addresses.take()
    addresses.release(taken[2])
    assert addresses.take() == taken[2]


def test_a_gateway_in_the_middle_is_never_given() -> None:
    addresses = pool("10.9.0.3/29")
    addresses.release(IPv4Address("10.9.0.3"))
    assert [int(addresses.take()) & 7 for _ in range(5)] == [1, 2, 4, 5, 6]


def test_an_address_of_ones_own_choice() -> None:
    addresses = pool()
    addresses.reserve("172.30.0.2")
    assert str(addresses.take()) == "172.30.0.3"
    with pytest.raises(Conflict, match="Address already in use"):
        addresses.reserve("172.30.0.2")


@pytest.mark.parametrize(
    "text", ["172.31.0.2", "172.30.0.0", "172.30.255.255", "nonsense", "", "fd00::2"]
)
def test_an_address_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidArgument):
        pool().reserve(text)


@pytest.mark.parametrize(
    "text",
    ["172.30.0.1", "172.30.0.0/16", "172.30.255.255/16", "10.0.0.1/31", "10.0.0.1/99", "x/16", ""],
)
def test_a_bridge_address_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid bridge address"):
        parse_bridge_address(text)
