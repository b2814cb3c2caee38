"""Flags are read as pflag reads them."""

from __future__ import annotations

import pytest

from sampan.cli import flags, values
from sampan.cli.create_flags import FLAGS as CREATE
from sampan.cli.failures import FlagError

ROWS = (
    ("all", "a", "bool", "", "All"),
    ("proxy", "", "bool", "true", "Proxy"),
    ("env", "e", "envs", "", "Env"),
    ("filter", "f", "filter", "", "Filter"),
    ("last", "n", "int", "-1", "Last"),
    ("memory", "m", "bytes", "", "Memory"),
    ("name", "", "string", '"x"', "Name"),
    ("platform", "", "strings", "", "Platforms"),
    ("tty", "t", "bool", "", "TTY"),
)


@pytest.mark.parametrize(
    ("argv", "expected", "arguments"),
    [
        ([], {"all": False, "proxy": True, "last": -1, "name": "x", "env": []}, []),
        (["-at"], {"all": True, "tty": True}, []),
        (["-atn5", "x"], {"all": True, "tty": True, "last": 5}, ["x"]),
        (["-n=5"], {"last": 5}, []),
        (["-n", "0x10"], {"last": 16}, []),
        (["--last=010"], {"last": 8}, []),
        (["-eA=b", "--env", "C=d", "--env=E"], {"env": ["A=b", "C=d", "E"]}, []),
        (["--all=false", "--proxy=0"], {"all": False, "proxy": False}, []),
        (["x", "-a", "y"], {"all": True}, ["x", "y"]),
        (["--", "-a"], {"all": False}, ["-a"]),
        (["-"], {}, ["-"]),
        (["-f", "Name=a=b"], {"filter": [("name", "a=b")]}, []),
        (["--name", ""], {"name": ""}, []),
        (["--platform", "a,b", "--platform=c"], {"platform": ["a", "b", "c"]}, []),
        (["-a=f"], {"all": False}, []),
    ],
)
def test_values(argv: list[str], expected: dict[str, object], arguments: list[str]) -> None:
    parsed = flags.parse(ROWS, argv)
    assert {name: parsed[name] for name in expected} == expected
    assert parsed.args == arguments


def test_stops_at_the_first_argument() -> None:
    parsed = flags.parse(ROWS, ["-a", "image", "-t", "--", "-x"], interspersed=False)
    assert parsed["all"] and not parsed["tty"]
    assert parsed.args == ["image", "-t", "--", "-x"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bad"], "unknown flag: --bad"),
        (["--al"], "unknown flag: --al"),
        (["-aZ"], "unknown shorthand flag: 'Z' in -aZ"),
        (["--last"], "flag needs an argument: --last"),
        (["-an"], "flag needs an argument: 'n' in -an"),
        (["--=x"], "bad flag syntax: --=x"),
        (["---x"], "bad flag syntax: ---x"),
        (
            ["-n", "x"],
            'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["-n", "99999999999999999999"],
            (
                'invalid argument "99999999999999999999" for "-n, --last" flag:'
                ' strconv.ParseInt: parsing "99999999999999999999": value out of range'
            ),
        ),
        (
            ["--all=maybe"],
            (
                'invalid argument "maybe" for "-a, --all" flag:'
                ' strconv.ParseBool: parsing "maybe": invalid syntax'
            ),
        ),
        (
            ["-f", "foo"],
            'invalid argument "foo" for "-f, --filter" flag: bad format of filter (expected name=value)',
        ),
        (["-m", "xx"], 'invalid argument "xx" for "-m, --memory" flag: invalid size: \'xx\''),
        (
            ["-e", "=x"],
            'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x',
        ),
    ],
)
def test_refusals(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        flags.parse(ROWS, argv)
    assert caught.value.message == message
    assert caught.value.status == 125


def test_a_bad_flag_behind_help_is_still_bad() -> None:
    with pytest.raises(FlagError):
        flags.parse(ROWS, ["--help", "--bad"])
    with pytest.raises(flags.HelpWanted):
        flags.parse(ROWS, ["x", "--help"])
    with pytest.raises(flags.HelpWanted) as caught:
        flags.parse(ROWS, ["-h"])
    assert "deprecated" in caught.value.notice
    assert flags.parse(CREATE, ["-h", "name", "image"])["hostname"] == "name"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64m", 64 << 20),
        ("1g", 1 << 30),
        ("1.5k", 1536),
        ("100", 100),
        ("7b", 7),
        ("2GiB", 2 << 30),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert values.parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("1.5", 1_500_000_000), ("1", 10**9), ("1/2", 500_000_000), (".25", 250_000_000)],
)
def test_cpus(text: str, nanos: int) -> None:
    assert values.parse_cpus(text) == nanos


@pytest.mark.parametrize("text", ["x", "", "1.0000000001", "1/0", "1.2.3"])
def test_no_cpus(text: str) -> None:
    with pytest.raises(ValueError):
        values.parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("-2ms", -2_000_000), ("0", 0), ("3us", 3000)],
)
def test_durations(text: str, nanos: int) -> None:
    assert values.parse_duration(text) == nanos


@pytest.mark.parametrize("text", ["", "5", "x", "1d", "-", ".s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        values.parse_duration(text)


def test_ulimits() -> None:
    assert values.parse_ulimit("nofile=1:2") == {"Name": "nofile", "Soft": 1, "Hard": 2}
    assert values.parse_ulimit("core=-1") == {"Name": "core", "Soft": -1, "Hard": -1}
    for text in ("nofile", "foo=1", "nofile=50:20", "nofile=x"):
        with pytest.raises(ValueError):
            values.parse_ulimit(text)
