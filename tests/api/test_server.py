"""From bytes to an answer: headers, refusals, bad HTTP, connections that are used again."""

from __future__ import annotations

import asyncio
import io
import random
from pathlib import Path

import pytest

from api.fakes import Api, FakeEngine
from sampan.api import server
from sampan.api.application import docker_api

JSON = {"Content-Type": "application/json"}


async def test_ping_says_what_is_served(api: Api) -> None:
    async with api.session.get("http://d/_ping") as response:
        assert await response.text() == "OK"
        assert response.headers["Api-Version"] == "1.55"
        assert response.headers["Ostype"] == "linux"
        assert response.headers["Docker-Experimental"] == "false"
        assert response.headers["Server"].startswith("Sampan/")
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "no-cache" in response.headers["Cache-Control"]
    async with api.session.head("http://d/_ping") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nosuch", 404, "page not found"),
        ("GET", "/", 404, "page not found"),
        ("PUT", "/containers/json", 404, "page not found"),
        ("GET", "/vfoo/info", 404, "page not found"),
        ("GET", "/v1.41", 404, "page not found"),
        ("GET", "/v1.99/info", 400, "client version 1.99 is too new."),
        ("GET", "/v1.41/plugins", 501, "plugins: not supported"),
        ("POST", "/build", 501, "building images: not supported"),
        ("GET", "/images/a/b/attestations", 501, "image attestations: not supported"),
        ("GET", "/containers/nosuch/json", 404, "No such container: nosuch"),
        ("GET", "/containers/json?limit=x", 400, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("GET", "/containers/json?filters=foo", 400, "invalid JSON"),
        ("GET", "/containers/json?filters=[1]", 400, "invalid filter"),
        ("GET", '/containers/json?filters={"foo":["x"]}', 400, "invalid filter 'foo'"),
    ],
)
async def test_refusals_are_json(
    api: Api, method: str, path: str, status: int, message: str
) -> None:
    got, answer = await api.ask(method, path)
    assert got == status
    assert message in answer["message"]


async def test_versions_before_json_errors_get_the_bare_message(api: Api) -> None:
    status, answer = await api.ask("GET", "/v1.20/containers/nosuch/json")
    assert (status, answer) == (404, "No such container: nosuch\n")


async def test_a_bug_is_an_answer_without_a_traceback(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(api.engine, "info", broken)
    assert await api.ask("GET", "/info") == (500, {"message": "a bug"})
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "request_bytes",
    [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: d\r\n\r\n"],
    ids=["no HTTP", "version", "NUL"],
)
async def test_what_is_no_http_is_refused(api: Api, request_bytes: bytes) -> None:
    reader, writer = await api.raw()
    writer.write(request_bytes)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400") or b" 400 " in answer.split(b"\r\n")[0]
    assert b"Traceback" not in answer
    writer.close()


async def test_a_head_in_single_bytes(api: Api) -> None:
    reader, writer = await api.raw()
    for byte in b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await reader.read()).endswith(b"OK")
    writer.close()


async def test_an_absolute_target(api: Api) -> None:
    reader, writer = await api.raw()
    writer.write(
        b"GET http://d:2375/v1.41/_ping?x=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    )
    assert (await reader.read()).endswith(b"OK")
    writer.close()


async def test_requests_one_behind_the_other(api: Api) -> None:
    reader, writer = await api.raw()
    writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n" * 20)
    for _ in range(20):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(2) == b"OK"
    writer.close()


async def test_expect_continue(api: Api) -> None:
    reader, writer = await api.raw()
    body = b'{"Image": "busybox"}'
    writer.write(
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201")
    writer.close()


async def test_a_hundred_megabytes_of_json_are_refused_unread(api: Api) -> None:
    status, answer = await api.ask(
        "POST", "/containers/create", io.BytesIO(b"[" * (100 << 20)), headers=JSON
    )
    assert status == 400
    assert "larger than 8 MiB" in answer["message"]


async def test_a_hundred_megabytes_in_chunks_are_refused_too(api: Api) -> None:
    async def chunks() -> object:
        for _ in range(1600):
            yield b" " * (64 << 10)

    async with api.session.post(
        "http://d/containers/create", data=chunks(), headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 400


async def test_a_wrong_content_type_is_refused(api: Api) -> None:
    status, answer = await api.ask(
        "POST", "/containers/create", b"{}", headers={"Content-Type": "text/plain"}
    )
    assert status == 400
    assert answer["message"] == (
        "unsupported Content-Type header (text/plain): must be 'application/json'"
    )


async def test_an_empty_body_is_refused(api: Api) -> None:
    status, answer = await api.ask("POST", "/containers/create", b"")
    assert (status, answer) == (
        400,
        {"message": "invalid JSON: got EOF while reading request body"},
    )


PIECES = [
    b"GET ", b"POST ", b"/_ping", b"/containers/x/attach", b"/exec/x/start", b"/v1.41", b" HTTP/1.1",
    b"\r\n", b"\r\n\r\n", b"Host: d\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b"5\r\nhello\r\n",
    b"0\r\n\r\n", b"\x00\xff", b"?filters={", b"%zz%00", b"{}", b"Expect: 100-continue\r\n",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
async def test_noise(api: Api, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is sent, the server answers the next client and has no bug to report."""
    chance = random.Random(seed)
    for _ in range(10):
        reader, writer = await api.raw()
        for _ in range(chance.randrange(1, 4)):
            writer.write(b"".join(chance.choices(PIECES, k=chance.randrange(1, 12))))
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(30):
            answer = await reader.read()
        assert b"Traceback" not in answer
        assert b" 500 " not in answer
        writer.close()
    assert (await api.ask("GET", "/_ping"))[0] == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_open_streams_do_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do connections without a request."""
    monkeypatch.setattr(server, "CLOSE_TIMEOUT_S", 3600.0)
    made = docker_api(FakeEngine())  # type: ignore[arg-type]
    path = str(tmp_path / "api.sock")
    listening = await asyncio.get_running_loop().create_unix_server(made.protocol_factory(), path)
    stream, stream_writer = await asyncio.open_unix_connection(path)
    idle, idle_writer = await asyncio.open_unix_connection(path)
    stream_writer.write(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
    assert (await stream.readline()).startswith(b"HTTP/1.1 200")
    listening.close()
    async with asyncio.timeout(30):
        await made.close()
        await stream.read()
        assert await idle.read() == b""
    for writer in (stream_writer, idle_writer):
        writer.close()
