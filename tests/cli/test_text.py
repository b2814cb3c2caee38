"""Numbers, ages, tables, JSON and wrapped help as docker prints them."""

from __future__ import annotations

import json

import pytest

from sampan.cli import helptext, jsontext, moments, ports, tabular, units
from sampan.cli.failures import CommandError


@pytest.mark.parametrize(
    ("size", "digits", "text"),
    [(0, 3, "0B"), (1984172, 3, "1.98MB"), (1984172, 4, "1.984MB"), (999, 4, "999B"), (10**12, 4, "1TB")],
)  # fmt: skip
def test_sizes(size: int, digits: int, text: str) -> None:
    assert units.human_size(size, digits) == text


def test_binary_sizes() -> None:
    assert units.binary_size(25276514304) == "23.54GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (2.4 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert units.human_duration(seconds) == text


def test_ellipsis_counts_columns() -> None:
    assert units.ellipsis("a" * 20, 20) == "a" * 20
    assert units.ellipsis("a" * 21, 20) == "a" * 19 + "…"
    assert units.ellipsis("舢" * 11, 20) == "舢" * 9 + "…"


def test_go_quotes() -> None:
    assert units.quote('a"b\\\n\x01é\x7f') == '"a\\"b\\\\\\n\\x01é\\x7f"'


def test_tables_are_tabwriters() -> None:
    lines = [["ID", "NAME", "LAST"], ["abc", "a-long-name", ""], ["only"]]
    assert tabular.align(lines) == (
        "ID        NAME          LAST\nabc       a-long-name   \nonly\n"
    )


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ([], ""),
        ([{"PrivatePort": 80, "Type": "tcp"}], "80/tcp"),
        ([{"PrivatePort": p, "Type": "tcp"} for p in (82, 80, 81, 90)], "80-82/tcp, 90/tcp"),
        (
            [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
            "0.0.0.0:8080->80/tcp",
        ),
        (
            [{"IP": "::", "PrivatePort": p, "PublicPort": p, "Type": "udp"} for p in (5, 6)],
            "[::]:5-6->5-6/udp",
        ),
    ],
)
def test_ports(listed: list[dict[str, object]], text: str) -> None:
    assert ports.displayed(listed) == text


VALUES = [
    None,
    True,
    0,
    -5,
    1.5,
    "",
    'a"\\\n\u2028é<&>',
    [],
    {},
    [1, [2, {}]],
    {"a": {"b": []}, "c": None},
]


@pytest.mark.parametrize("value", VALUES)
def test_json_round_trip(value: object) -> None:
    assert json.loads(jsontext.encode(value)) == value
    assert json.loads(jsontext.pretty(value)) == value
    assert jsontext.decode(f" {json.dumps(value)} \n") == value


def test_json_is_gos() -> None:
    assert jsontext.encode({"a": "<é>"}) == '{"a":"<é>"}'
    assert jsontext.encode({"a": "<é>"}, html=True) == '{"a":"\\u003cé\\u003e"}'
    assert jsontext.pretty({"a": [1, {}], "b": []}) == (
        '{\n    "a": [\n        1,\n        {}\n    ],\n    "b": []\n}'
    )


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nul", "{} x", '"\n"', "NaN"])
def test_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        jsontext.decode(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2013-01-02T13:23:37Z", "1357133017.000000000"),
        ("2013-01-02T13:23:37.25+01:00", "1357129417.250000000"),
        ("1357133017", "1357133017"),
        ("1357133017.5", "1357133017.500000000"),
    ],
)
def test_moments(text: str, moment: str) -> None:
    assert moments.api_time(text) == moment


@pytest.mark.parametrize("text", ["x", "2013-13-01T00:00:00Z", "yesterday"])
def test_no_moments(text: str) -> None:
    with pytest.raises(CommandError, match="failed to parse value as time or duration"):
        moments.api_time(text)


def test_help_is_wrapped_as_pflags() -> None:
    text = "one two three four five six seven eight"
    assert helptext.wrap(10, 40, text) == "one two three four five\n" + " " * 10 + "six seven eight"
    assert helptext.wrap(10, 60, text) == text
