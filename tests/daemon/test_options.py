"""Options of the command line and of daemon.json, in dockerd's spelling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.daemon.options import Options, changed, parse
from sampan.daemon.quantities import parse_ulimit
from sampan.errors import InvalidArgument
from sampan.network.bridge_wishes import BridgeWishes
from sampan.state.events import Limits


@pytest.fixture
def no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file of this machine gets in."""
    monkeypatch.setattr("sampan.daemon.options.DEFAULT_CONFIG_FILE", str(tmp_path / "none.json"))


def config(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize("text", ["", "x", "5iB", "-1", "1e9", "9" * 40, "1GBB"])
def test_a_budget_that_is_no_size(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid value for --disk-budget"):
        parse([f"--disk-budget={text}"])


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize("text", ["", "x", "0d", "1.5d", "-1d", "3", "1y"])
def test_an_age_that_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid value for --events-max-age"):
        parse([f"--events-max-age={text}"])


@pytest.mark.usefixtures("no_file")
def test_how_much_is_kept_of_events() -> None:
    assert parse(["--events-max-age=2w", "--events-max-size", "1MiB"]).events == Limits(
        size_bytes=1 << 20, age_s=14 * 86400.0
    )
    with pytest.raises(InvalidArgument, match="--events-max-size: 63KiB: at least 64KiB"):
        parse(["--events-max-size=63KiB"])


@pytest.mark.usefixtures("no_file")
def test_defaults() -> None:
    options = parse([])
    assert options.data_root == "/var/lib/sampan"
    assert options.listen_on == ("unix:///run/sampan/sampan.sock",)
    assert options.pid_path == "/run/sampan/sampand.pid"
    assert options.for_engine().bridge == "sampan0"


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["-D"], "debug", True),
        (["--debug"], "debug", True),
        (["--debug=true"], "debug", True),
        (["--debug=false"], "debug", False),
        (["-H", "unix:///a", "--host=tcp://b:1"], "hosts", ("unix:///a", "tcp://b:1")),
        (["--data-root", "/a/"], "data_root", "/a"),
        (["--exec-root=/b"], "exec_root", "/b"),
        (["-G", "adm"], "group", "adm"),
        (["-p", "/x.pid"], "pidfile", "/x.pid"),
        (["-b", "br"], "bridge", "br"),
        (["--bip", "10.1.0.1/24"], "default_bridge", BridgeWishes(bip="10.1.0.1/24")),
        (["-l", "WARN"], "log_level", "warn"),
        (["--label", "a=b", "--label=c=d"], "labels", ("a=b", "c=d")),
        (["--init"], "init", True),
        (["--trace-start"], "trace_start", True),
        (["--default-ulimit", "nofile=1:2"], "ulimits", (("nofile", 1, 2),)),
        (["--default-ulimit=core=-1"], "ulimits", (("core", -1, -1),)),
        (["--validate"], "validate", True),
        (["--disk-budget", "20GB"], "disk_budget_bytes", 20_000_000_000),
        (["--disk-budget=1.5GiB"], "disk_budget_bytes", 3 << 29),
        (["--disk-budget", "4096"], "disk_budget_bytes", 4096),
    ],
)
def test_flags(arguments: list[str], field: str, value: object) -> None:
    assert getattr(parse(arguments), field) == value


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nosuch"], "unrecognized arguments: --nosuch"),
        (["--deb"], "unrecognized arguments: --deb"),
        (["word"], "unrecognized arguments: word"),
        (["--debug=maybe"], "invalid boolean: maybe"),
        (["-l", "loud"], "unable to parse logging level: loud"),
        (["--bip", "10.1.0.1"], "has no prefix length"),
        (["--bip", "x/24"], "invalid value for --bip"),
        (["--label", "x"], "bad attribute format: x"),
        (["--default-ulimit", "nofile"], "invalid ulimit argument: nofile"),
        (["--default-ulimit", "nofile=5:1"], "less than or equal to hard limit: 5 > 1"),
        (["--config-file", "/nosuch.json"], "no such configuration file: /nosuch.json"),
        (["--data-root", ""], "cannot be an empty path"),
    ],
)
def test_refused_flags(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message.replace("(", r"\(")):
        parse(arguments)


def test_a_file(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        {
            "hosts": ["unix:///a"],
            "data-root": "/d",
            "debug": True,
            "labels": ["a=b"],
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}},
        },
    )
    options = parse(["--config-file", path, "--exec-root", "/e"])
    assert options.hosts == ("unix:///a",)
    assert (options.data_root, options.exec_root, options.debug) == ("/d", "/e", True)
    assert options.ulimits == (("nofile", 1, 2),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "one JSON object"),
        ("[" * 100_000, "daemon.json"),
        ({"nosuch": 1, "debug": True}, "don't match any configuration option: nosuch"),
        ({"host": []}, "don't match any configuration option: host"),
        ({"debug": "yes"}, 'debug cannot be "yes"'),
        ({"hosts": "unix:///a"}, 'hosts cannot be "unix:///a"'),
        ({"hosts": [1]}, "hosts cannot be"),
        ({"default-ulimits": {"nofile": 5}}, "nofile has to be"),
        ({"log-level": "loud"}, "unable to parse logging level: loud"),
    ],
)
def test_refused_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(["--config-file", config(tmp_path, content)])
    assert message in caught.value.message


def test_an_empty_file(tmp_path: Path) -> None:
    assert parse(["--config-file", config(tmp_path, "")]).data_root == "/var/lib/sampan"


def test_not_in_both(tmp_path: Path) -> None:
    path = config(tmp_path, {"debug": False, "data-root": "/x"})
    with pytest.raises(InvalidArgument) as caught:
        parse(["--config-file", path, "-D", "--data-root=/y"])
    assert caught.value.message.endswith(
        "data-root: (from flag: /y, from file: /x), debug: (from flag: true, from file: false)"
    )


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("Sampan version ")


def test_what_a_reload_finds() -> None:
    assert changed(Options(), Options(debug=True, labels=("a=b",), config_file="/x")) == [
        "debug",
        "labels",
    ]


def test_an_unlimited_soft_limit_below_a_hard_one() -> None:
    with pytest.raises(InvalidArgument):
        parse_ulimit("nofile=-1:5")
