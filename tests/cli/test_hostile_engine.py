"""Whatever answers at the address, a command ends with a status and a line, not with a traceback."""

from __future__ import annotations

import gc
import json

import pytest

from cli.fakes import Server
from sampan.cli.main import execute

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


def body(data: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)


ANSWERS = {
    "nothing": b"Connection: close",
    "not HTTP": b"SSH-2.0 Connection: close\r\n\r\n",
    "no status": b"HTTP/1.1\r\nConnection: close\r\n\r\n",
    "a length that is none": HEAD + b"Content-Length: x\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n",
    "cut off": HEAD + b"Content-Length: 50\r\n\r\n[{",
    "a chunk size that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
    "a cut chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nab",
    "not JSON": body(b"{]"),
    "half a JSON": body(b'[{"Id":'),
    "another shape": body(b'{"a": 1}'),
    "a list of numbers": body(b"[1, 2]"),
    "null": body(b"null"),
    "fields missing": body(b'[{"Id": "x"}]'),
    "fields of other types": body(json.dumps([{"Id": 1, "Names": 2, "Command": [], "Image": {}, "Created": "x"}]).encode()),
    "very deep": body(b"[" * 100_000),
    "not UTF-8": body(b'["\xff\xfe"]'),
    "an error without JSON": b"HTTP/1.1 500 X\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
    "an error with another shape": b"HTTP/1.1 404 X\r\nConnection: close\r\nContent-Length: 9\r\n\r\n[1, 2, 3]",
}  # fmt: skip

COMMANDS = (
    ["ps"],
    ["ps", "--format", "{{.Names}}{{.Ports}}"],
    ["inspect", "x"],
    ["images"],
    ["info"],
    ["run", "-d", "image"],
    ["run", "image"],
    ["exec", "x", "true"],
    ["logs", "x"],
    ["attach", "x"],
    ["wait", "x", "y"],
    ["top", "x"],
    ["version"],
    ["load", "-i", "/dev/null"],
)


@pytest.mark.filterwarnings(  # the process's end closes what a failed command leaves open
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
@pytest.mark.parametrize("name", ANSWERS)
def test_no_traceback(name: str, tmp_path: object, capfd: pytest.CaptureFixture[str]) -> None:
    server = Server(f"{tmp_path}/s.sock", lambda request: ANSWERS[name])
    try:
        for arguments in COMMANDS:
            status = execute(arguments, {"DOCKER_HOST": server.url})
            told = capfd.readouterr()
            assert 0 <= status <= 255
            assert "Traceback" not in told.err
            assert status == 0 or told.err.strip(), arguments
    finally:
        server.close()
        gc.collect()
