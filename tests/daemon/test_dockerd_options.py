"""dockerd's options: each is honoured, or refused by its name with a reason; none is unknown."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.daemon import command_line, dockerd_options
from sampan.daemon.options import Options, parse
from sampan.engine.preset import Preset
from sampan.errors import InvalidArgument
from support.command import DockerCLI, docker_clis
from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for


@pytest.fixture
def no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.daemon.options.DEFAULT_CONFIG_FILE", str(tmp_path / "none.json"))


def from_file(tmp_path: Path, content: dict[str, Any]) -> Options:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps(content))
    return parse(["--config-file", str(path)])


def test_all_of_dockerds_flags_are_known() -> None:
    if shutil.which("dockerd") is None:
        pytest.skip("needs dockerd")
    text = subprocess.run(["dockerd", "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", text, flags=re.MULTILINE))
    known = {*command_line.KINDS, "config-file", "help", "version", "validate"}
    assert flags - known == set()
    assert len(flags) > 60


def test_no_option_is_in_two_tables() -> None:
    tables = [
        set(dockerd_options.OPTIONS),
        set(dockerd_options.NO_DIFFERENCE),
        set(command_line.HELP),
    ]
    for table in tables:
        assert all(table.isdisjoint(other) for other in tables if other is not table)


@pytest.mark.parametrize("name", dockerd_options.OPTIONS)
def test_refused_by_name(tmp_path: Path, name: str) -> None:
    option = dockerd_options.OPTIONS[name]
    other: dict[type, Any] = {str: "x", int: 12345, list: ["x"], dict: {"x": True}}
    key = dockerd_options.FILE_NAMES.get(name, name)
    value = other[option.kind] if option.kind is not bool else not option.harmless[0]
    with pytest.raises(InvalidArgument) as caught:
        from_file(tmp_path, {key: value})
    assert caught.value.message.startswith(name)
    assert caught.value.message.endswith(f"is not supported: {option.reason}")
    for harmless in option.harmless:
        from_file(tmp_path, {key: harmless})


@pytest.mark.parametrize(
    ("content", "field", "value"),
    [
        ({"default-shm-size": "128M"}, "shm_bytes", 128 << 20),
        ({"default-shm-size": 4096}, "shm_bytes", 4096),
        ({"default-ipc-mode": "shareable"}, "ipc_mode", "shareable"),
        ({"default-cgroupns-mode": "host"}, "cgroupns_mode", "host"),
        ({"dns": ["1.2.3.4", "::1"]}, "dns", ("1.2.3.4", "::1")),
        ({"dns-search": ["a.b"]}, "dns_search", ("a.b",)),
        ({"dns-opts": ["ndots:1"]}, "dns_options", ("ndots:1",)),
        ({"log-driver": "none"}, "log_driver", "none"),
        ({"log-opts": {"max-size": "1m"}}, "log_options", {"max-size": "1m"}),
        ({"log-opts": {"max-size": "1m"}}, "log_driver", "json-file"),
        ({"no-new-privileges": True}, "no_new_privileges", True),
        ({"seccomp-profile": "unconfined"}, "seccomp_profile", "unconfined"),
        ({"seccomp-profile": "builtin"}, "seccomp_profile", ""),
        ({"default-runtime": "sampan"}, "runtime", "sampan"),
        ({"init": True}, "init", True),
    ],
)
def test_preset(tmp_path: Path, content: dict[str, Any], field: str, value: object) -> None:
    preset: Preset = from_file(tmp_path, content).for_engine().preset
    assert getattr(preset, field) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"default-shm-size": "x"}, "invalid size: 'x'"),
        ({"default-ipc-mode": "host"}, "default-ipc-mode host is not supported"),
        ({"default-cgroupns-mode": "x"}, "default-cgroupns-mode x is not supported"),
        ({"dns": ["x"]}, "x is not an ip address"),
        ({"log-driver": "nosuch"}, "no log driver named 'nosuch' is registered"),
        ({"log-opts": {"nosuch": "1"}}, "unknown log opt 'nosuch' for json-file log driver"),
        ({"log-opts": {"max-file": 3}}, "every value has to be a string, not"),
        ({"seccomp-profile": "/nosuch"}, "opening seccomp profile (/nosuch) failed"),
        ({"default-runtime": "nosuch"}, "specified default runtime 'nosuch' does not exist"),
        ({"runtimes": {"sampan": {"path": "/x"}}}, "runtime name 'sampan' is reserved"),
        ({"runtimes": {"x": {}}}, "x has to have a path"),
        ({"runtimes": {"x": {"path": "relative"}}}, "it has to be name=/path"),
        ({"oom-score-adjust": 2000}, "invalid oom-score-adjust: 2000"),
        ({"shutdown-timeout": -2}, "invalid shutdown timeout: -2"),
        ({"proxies": {"ftp-proxy": "x"}}, "proxies can hold http-proxy"),
    ],
)
def test_refused_values(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        from_file(tmp_path, content)
    assert message in caught.value.message


def test_runtimes_and_proxies(tmp_path: Path) -> None:
    found = from_file(
        tmp_path,
        {
            "runtimes": {"mine": {"path": "/a b", "runtimeArgs": ["--debug", "x y"]}},
            "default-runtime": "mine",
            "proxies": {"http-proxy": "http://p:1", "no-proxy": "a,b"},
        },
    )
    assert found.for_engine().runtimes == {"mine": ("/a b", "--debug", "x y")}
    assert found.proxies == (("http-proxy", "http://p:1"), ("no-proxy", "a,b"))


@pytest.mark.root
@pytest.mark.docker_cli
def test_what_containers_get(own_sampan: SampanEngine, tmp_path: Path) -> None:
    """From the file at the start, other values after SIGHUP, which an event tells; the client's word counts more."""
    path = tmp_path / "daemon.json"
    first = {
        "default-shm-size": "16m",
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 77, "Hard": 99}},
        "dns": ["192.0.2.1"],
        "no-new-privileges": True,
        "log-opts": {"max-size": "1m"},
        "oom-score-adjust": 5,
    }
    path.write_text(json.dumps(first))
    own_sampan.terminate()
    own_sampan.start("--config-file", str(path))
    docker: DockerCLI = own_sampan.cli(next(iter(docker_clis().values())))
    look = "ulimit -n; cat /etc/resolv.conf; grep NoNewPrivs /proc/self/status; df -k /dev/shm; cat /proc/self/oom_score_adj"
    shown = docker("run", "--name", "one", IMAGE, "sh", "-c", look).out
    assert shown.startswith("77\n") and "nameserver 192.0.2.1" in shown
    assert "NoNewPrivs:\t1" in shown and " 16384 " in shown
    assert shown.endswith("\n0\n")
    assert own_sampan.process is not None
    assert Path(f"/proc/{own_sampan.process.pid}/oom_score_adj").read_text() == "5\n"
    host = own_sampan.get("/containers/one/json").json["HostConfig"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    path.write_text(
        json.dumps({**first, "default-shm-size": "8m", "labels": ["a=b"], "init": True})
    )
    os.kill(own_sampan.process.pid, signal.SIGHUP)
    wait_for(lambda: own_sampan.get("/info").json["Labels"] == ["a=b"], "the new labels")
    run = docker(
        "run",
        "--rm",
        "--dns",
        "192.0.2.2",
        IMAGE,
        "sh",
        "-c",
        "df -k /dev/shm; cat /etc/resolv.conf; cat /proc/1/comm",
    ).out
    assert " 8192 " in run and "nameserver 192.0.2.2" in run and "192.0.2.1" not in run
    assert not run.endswith("sh\n")
    since = own_sampan.get(
        "/events", since="1", until=f"{time.time():.9f}", filters='{"type":["daemon"]}'
    )
    events = [json.loads(line) for line in since.body.splitlines()]
    assert [event["Action"] for event in events] == ["reload"]
    assert events[0]["Actor"]["Attributes"]["default-shm-size"] == str(8 << 20)
