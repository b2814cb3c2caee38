"""Egress policies and rates as they are written."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.network.policy import EVERYTHING, PROTOCOLS, Ports, parse_policy
from sampan.network.rate import Rate, parse_rate


@pytest.mark.parametrize("text", ["full", "none"])
def test_all_and_nothing(text: str) -> None:
    policy = parse_policy(text)
    assert (policy.text, policy.groups, policy.is_full) == (text, (), text == "full")


def test_entries_are_grouped_by_ports() -> None:
    policy = parse_policy(
        "allow:pypi.org,*.Debian.org.:443,10.1.0.0/16,10.1.2.3,[2001:db8::1]:53/udp,2001:db8::/32,"
        "db:5000-5010/tcp,files.pythonhosted.org"
    )
    groups = {group.ports: group for group in policy.groups}
    assert set(groups) == {
        EVERYTHING,
        Ports(PROTOCOLS, 443, 443),
        Ports(("udp",), 53, 53),
        Ports(("tcp",), 5000, 5010),
    }
    everything = groups[EVERYTHING]
    assert everything.names == ("pypi.org", "files.pythonhosted.org")
    assert everything.subnets == (ip_network("10.1.0.0/16"),), "what overlaps is one"
    assert everything.subnets6 == (ip_network("2001:db8::/32"),)
    assert groups[Ports(PROTOCOLS, 443, 443)].names == ("*.debian.org",)
    assert groups[Ports(("udp",), 53, 53)].subnets6 == (ip_network("2001:db8::1/128"),)
    assert groups[Ports(("tcp",), 5000, 5010)].names == ("db",)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "network policy"),
        ("nothing", "network policy"),
        ("allow:", "''"),
        ("allow:a,,b", "''"),
        ("allow:10.1.0.0/33", "10.1.0.0/33"),
        ("allow:10.1.2", "10.1.2"),
        ("allow:300.1.1.1", "300.1.1.1"),
        ("allow:2001:db8::/129", "2001:db8::/129"),
        ("allow:[10.0.0.1]:5", "[10.0.0.1]:5"),
        ("allow:[::1", "[::1"),
        ("allow:[::1]5", "[::1]5"),
        ("allow:a.b:0", "ports"),
        ("allow:a.b:70000", "ports"),
        ("allow:a.b:20-10", "ports"),
        ("allow:a.b:http", "port"),
        ("allow:a.b:53/icmp", "icmp"),
        ("allow:a..b", "a..b"),
        ("allow:-a.b", "-a.b"),
        ("allow:a*.b", "a*.b"),
        ("allow:*.*", "*.*"),
        ("allow:ä.example", "example"),
        ("allow:a.b; drop", "a.b"),
        ('allow:"', '"'),
        ("allow:" + "a" * 64 + ".b", "name"),
        ("allow:" + ",".join(f"h{n}" for n in range(513)), "512"),
    ],
)
def test_what_cannot_be_meant_is_named(text: str, part: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_policy(text)
    assert part in refusal.value.message


@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """Nothing else happens, and what gets through holds only harmless characters."""
    try:
        policy = parse_policy("allow:" + text)
    except InvalidArgument:
        return
    for group in policy.groups:
        for name in group.names:
            assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-*")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", Rate()),
        ("none", Rate()),
        ("in=10mbit,out=5mbit", Rate(1_250_000, 625_000)),
        ("out=1.5Mbit", Rate(0, 187_500)),
        ("in=100kbps", Rate(100_000, 0)),
        ("in=8Mibit, out=0", Rate(1 << 20, 0)),
        ("in=80000", Rate(10_000, 0)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        "10mbit",
        "in",
        "in=",
        "in=fast",
        "up=1mbit",
        "in=1mbit,in=2mbit",
        "in=-1mbit",
        "in=1bit",
        "in=100tbit",
        "in=1mbit,",
        "in=1e9",
    ],
)
def test_no_rates(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_rate(text)
