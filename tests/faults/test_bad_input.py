"""What clients send by mistake or malice: an answer that names it, and an engine that goes on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for

CREATE = "/containers/create"


def post_raw(engine: SampanEngine, raw: bytes, content_type: str = "application/json") -> Any:
    return engine.request("POST", CREATE, raw=raw, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"{", ""),
        (b"not json", ""),
        (b"", ""),
        (b"[]", ""),
        (b'"text"', ""),
        (b"null", ""),
        (b"\xff\xfe{}", ""),
        (b'{"Image": 5}', "Image"),
        (b'{"Image": "x", "Cmd": 5}', "Cmd"),
        (b'{"Image": "x", "Cmd": [5]}', "Cmd"),
        (b'{"Image": "x", "Env": "A=1"}', "Env"),
        (b'{"Image": "x", "Tty": "yes"}', "Tty"),
        (b'{"Image": "x", "Labels": []}', "Labels"),
        (b'{"Image": "x", "HostConfig": []}', "HostConfig"),
        (b'{"Image": "x", "HostConfig": {"Memory": "64m"}}', "Memory"),
        (b'{"Image": "x", "HostConfig": {"Memory": 1.5}}', "Memory"),
        (b'{"Image": "x", "HostConfig": {"Memory": 99999999999999999999}}', "Memory"),
        (b'{"Image": "x", "HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": "1"}]}}', "Soft"),
        (b'{"Image": "x", "HostConfig": {"Binds": [["/a", "/b"]]}}', "Binds"),
        (b'{"Image": "x", "NoSuchField": 1}', "NoSuchField"),
        (b'{"Image": "x", "HostConfig": {"NoSuchField": 1}}', "NoSuchField"),
        (b'{"a":' * 100_000, ""),
        (b"[" * 1_000_000, ""),
    ],
    ids=lambda value: value[:60].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_bad_json(engine: SampanEngine, raw: bytes, named: str) -> None:
    answer = post_raw(engine, raw)
    assert answer.status == 400, answer
    assert named in answer.message
    assert "Traceback" not in answer.message


def test_wrong_content_type(engine: SampanEngine) -> None:
    answer = post_raw(engine, b'{"Image": "x"}', "text/plain")
    assert answer.status in (400, 415)
    assert "text/plain" in answer.message


def test_100_megabytes_of_json(engine: SampanEngine) -> None:
    """Refused without being taken into memory."""
    assert engine.process is not None
    before = rss_mib(engine.process.pid)

    def chunks() -> Iterator[bytes]:
        yield b'{"Image": "'
        for _ in range(100):
            yield b"x" * (1 << 20)
        yield b'"}'

    with engine.connect() as connection:
        try:
            connection.start(
                "POST", CREATE, raw=chunks(), headers={"Content-Type": "application/json"}
            )
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered, and closed, before all was sent
        status, reason, headers = connection.read_head()
        assert status in (400, 413)
        assert connection.finish(status, reason, headers).message
    assert rss_mib(engine.process.pid) < before + 40
    assert engine.get("/_ping").status == 200


def rss_mib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) // 1024


@pytest.mark.parametrize(
    "text",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1",
        b"GET " + b"/x" * 50_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_no_http(engine: SampanEngine, text: bytes) -> None:
    with engine.connect(timeout_s=30) as connection:
        connection.sock.sendall(text)
        connection.sock.shutdown(socket.SHUT_WR)
        data = b"".join(connection.rest())
    assert data == b"" or data.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), data[:200]
    assert engine.get("/_ping").status == 200


@pytest.mark.parametrize(
    "reference",
    ["../../etc", "%2e%2e%2f", "a%00b", "%ff%fe", "x" * 300, "-", "%2F%2F", "a%0ab"],
)
def test_names_in_paths(engine: SampanEngine, reference: str) -> None:
    for method, path in (
        ("GET", f"/containers/{reference}/json"),
        ("DELETE", f"/images/{reference}"),
        ("GET", f"/exec/{reference}/json"),
    ):
        answer = engine.request(method, path)
        assert answer.status in (400, 404), (path, answer)
        assert answer.message


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "-a", ".", "", "a\nb", "é", "x" * 300])
def test_container_names(engine: SampanEngine, name: str) -> None:
    answer = engine.post(CREATE, {"Image": IMAGE}, name=name)
    if name == "" or (name == "x" * 300 and answer.status == 201):
        assert answer.status == 201
        return
    assert (answer.status, "Invalid container name" in answer.message) == (400, True), answer


@pytest.mark.parametrize(
    ("query", "named"),
    [("tail=x", ""), ("since=x", "since"), ("until=x", "until")],
)
def test_log_options(engine: SampanEngine, unused_name: str, query: str, named: str) -> None:
    engine.post(CREATE, {"Image": IMAGE}, name=unused_name)
    answer = engine.get(f"/containers/{unused_name}/logs?stdout=1&{query}")
    assert answer.status in (200, 400)
    if answer.status == 400:
        assert answer.message


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["/tmp:/../../x"]},
        {"Binds": ["/tmp:/x:nosuchmode"]},
        {"Mounts": [{"Type": "nosuch", "Target": "/x"}]},
        {"Mounts": [{"Type": "bind", "Source": "relative", "Target": "/x"}]},
        {"Tmpfs": {"/x": "nosuchoption"}},
        {"Ulimits": [{"Name": "nosuch", "Soft": 1, "Hard": 1}]},
        {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "q"}]},
        {"CpusetCpus": "0-"},
        {"CpusetMems": "99"},
        {"PidsLimit": -5},
        {"OomScoreAdj": 5000},
        {"RestartPolicy": {"Name": "nosuch"}},
        {"LogConfig": {"Type": "nosuch"}},
        {"LogConfig": {"Type": "json-file", "Config": {"max-size": "x"}}},
        {"LogConfig": {"Type": "json-file", "Config": {"nosuch": "x"}}},
        {"SecurityOpt": ["nosuch=x"]},
        {"SecurityOpt": ["seccomp=/no/such/file"]},
        {"CapAdd": ["NOSUCH"]},
        {"IpcMode": "nosuch"},
        {"PidMode": "nosuch"},
        {"UTSMode": "nosuch"},
        {"Runtime": "nosuch"},
        {"Isolation": "nosuch"},
        {"ShmSize": -5},
        {"Memory": -5},
        {"ExtraHosts": ["nocolon"]},
        {"Dns": ["not an address"]},
        {"Sysctls": {"kernel.hostname": "x"}},
        {"Sysctls": {"../../etc/x": "x"}},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_host_config(engine: SampanEngine, unused_name: str, host: dict[str, Any]) -> None:
    """Refused at create or at start, in words; or, where the kernel takes it, it runs; never a 500 traceback."""
    answer = engine.post(
        CREATE, {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host}, name=unused_name
    )
    if answer.status == 201:
        answer = engine.post(f"/containers/{unused_name}/start")
    assert answer.status in (204, 400, 404, 409, 500, 501), answer
    if answer.status != 204:
        assert answer.message
        assert "Traceback" not in answer.message
        assert "object has no attribute" not in answer.message
        assert "internal" not in answer.message.lower()


def test_a_client_that_does_not_read(engine: SampanEngine, unused_name: str) -> None:
    """A stalled reader of logs costs the engine no memory, and others are served."""
    assert engine.process is not None
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", "yes 0123456789012345678901234567890123456789 | head -n 500000"],
        "HostConfig": {"NetworkMode": "none"},
    }
    engine.post(CREATE, body, name=unused_name)
    engine.post(f"/containers/{unused_name}/start")
    engine.post(f"/containers/{unused_name}/wait")
    before = rss_mib(engine.process.pid)
    with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            connection.start("GET", f"/containers/{unused_name}/logs", query={"stdout": 1})
            connection.read_head()
        for _ in range(20):
            assert engine.get("/_ping").status == 200
        assert rss_mib(engine.process.pid) < before + 40
    assert engine.get("/_ping").status == 200


def test_many_clients_that_vanish(engine: SampanEngine, unused_name: str) -> None:
    assert engine.process is not None
    pid = engine.process.pid
    engine.post(CREATE, {"Image": IMAGE, "Cmd": ["sleep", "600"]}, name=unused_name)
    engine.post(f"/containers/{unused_name}/start")
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for _ in range(10):
        with engine.connect() as connection:
            connection.hijack(
                f"/containers/{unused_name}/attach", query={"stream": 1, "stdout": 1, "stdin": 1}
            )
        with engine.connect() as connection:
            connection.start(
                "GET", f"/containers/{unused_name}/logs", query={"stdout": 1, "follow": 1}
            )
        with engine.connect() as connection:
            connection.start("GET", "/events")
        with engine.connect() as connection:
            connection.start("POST", f"/containers/{unused_name}/wait")
        with engine.connect() as connection:
            connection.send_head(
                "POST", CREATE, {"Content-Type": "application/json", "Content-Length": "1000"}
            )
    wait_for(
        lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 2, "the daemon to close its sides"
    )
