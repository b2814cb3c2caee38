"""WWW-Authenticate as registries write it, and as nobody should."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.images.distribution.challenges import of_scheme, parse_challenges

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull"'


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        (
            [HUB],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/x:pull",
                    },
                )
            ],
        ),
        (["Basic"], [("basic", {})]),
        (['Basic realm="a b, c"'], [("basic", {"realm": "a b, c"})]),
        (['BASIC Realm = "x"'], [("basic", {"realm": "x"})]),
        (["Basic realm=plain"], [("basic", {"realm": "plain"})]),
        ([r'Basic realm="a \"quoted\" \\ name"'], [("basic", {"realm": 'a "quoted" \\ name'})]),
        (
            ['Bearer realm="r",service="s", Basic realm="b"'],
            [("bearer", {"realm": "r", "service": "s"}), ("basic", {"realm": "b"})],
        ),
        (
            ['Basic realm="b"', 'Bearer realm="r"'],
            [("basic", {"realm": "b"}), ("bearer", {"realm": "r"})],
        ),
        (["Negotiate, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (['Bearer realm="r", realm="second"'], [("bearer", {"realm": "r"})]),
        (
            ["Bearer realm=https://auth.example/token?x=1,service=s"],
            [("bearer", {"realm": "https://auth.example/token?x=1", "service": "s"})],
        ),
        ([", ,"], []),
        (['realm="without a scheme"'], []),
        (['Bearer realm="never closed'], [("bearer", {})]),
    ],
)
def test_challenges(values: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    found = [(item.scheme, dict(item.parameters)) for item in parse_challenges(values)]
    assert found == expected


def test_a_bearer_challenge_needs_a_realm() -> None:
    challenges = parse_challenges(["Bearer service=x, Basic realm=y"])
    assert of_scheme(challenges, "bearer") is None
    basic = of_scheme(challenges, "basic")
    assert basic is not None and basic.parameters == {"realm": "y"}


def test_scopes() -> None:
    (challenge,) = parse_challenges(['Bearer realm="r",scope="a:b:pull c:d:push"'])
    assert challenge.scopes == ["a:b:pull", "c:d:push"]


@given(st.text(max_size=200))
def test_anything_is_read(value: str) -> None:
    for challenge in parse_challenges([value]):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize("unit", [", ", '\\"', "a=b,", "a ", '"', "=", 'a="\\', "\t", "a"])
def test_a_long_value_takes_no_long_time(unit: str) -> None:
    started = time.thread_time()
    parse_challenges(["Bearer " + unit * 100_000])
    assert time.thread_time() - started < 1.0
