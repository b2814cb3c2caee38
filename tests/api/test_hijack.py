"""Connections that leave HTTP: heads, early input, half-closing, failures, the hand-over itself."""

from __future__ import annotations

import asyncio

import pytest

from api.fakes import Api
from sampan.errors import Conflict, Unavailable

ATTACH = "/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1"


async def test_attach_with_upgrade(api: Api) -> None:
    await api.container(OpenStdin=True)
    head, reader, writer = await api.hijack(ATTACH)
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" in head
    assert b"Content-Type: application/vnd.docker.multiplexed-stream\r\n" in head
    assert b"Transfer-Encoding" not in head
    writer.write(b"first")
    assert await reader.readexactly(5) == b"first"
    writer.write_eof()
    assert await reader.read() == b"[end]"
    writer.close()


async def test_attach_without_upgrade(api: Api) -> None:
    await api.container(OpenStdin=True, Tty=True)
    head, reader, writer = await api.hijack(ATTACH, upgrade=False)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: application/vnd.docker.raw-stream\r\n" in head
    assert b"Transfer-Encoding" not in head
    assert b"Content-Length" not in head
    writer.write_eof()
    assert await reader.read() == b"[end]"
    writer.close()


@pytest.mark.parametrize(
    ("prefix", "tty", "expected"),
    [
        ("/v1.41", False, b"raw-stream"),
        ("/v1.42", False, b"multiplexed-stream"),
        ("/v1.42", True, b"raw-stream"),
    ],
)
async def test_the_type_of_the_stream(api: Api, prefix: str, tty: bool, expected: bytes) -> None:
    await api.container(Tty=tty)
    head, _, writer = await api.hijack(prefix + ATTACH)
    assert expected in head
    writer.close()


@pytest.mark.parametrize("size", [1, 100, 300_000])
async def test_input_sent_before_the_answer_is_not_lost(api: Api, size: int) -> None:
    await api.container(OpenStdin=True)
    early = b"0123456789" * size
    head, reader, writer = await api.hijack(ATTACH, early=early)
    assert head.startswith(b"HTTP/1.1 101")
    assert await reader.readexactly(len(early)) == early
    writer.write_eof()
    assert await reader.read() == b"[end]"
    writer.close()


async def test_early_input_that_looks_like_a_request(api: Api) -> None:
    await api.container(OpenStdin=True)
    early = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    _, reader, writer = await api.hijack(ATTACH, early=early)
    assert await reader.readexactly(len(early)) == early
    writer.close()


async def test_on_a_connection_that_was_used_before(api: Api) -> None:
    await api.container(OpenStdin=True)
    reader, writer = await api.raw()
    writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"\r\n\r\nOK")
    writer.write(f"POST {ATTACH} HTTP/1.1\r\nHost: d\r\n\r\nearly".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await reader.readexactly(5) == b"early"
    writer.close()


async def test_a_head_in_pieces(api: Api) -> None:
    await api.container(OpenStdin=True)
    reader, writer = await api.raw()
    for piece in (
        b"PO",
        b"ST /conta",
        b"iners/box/attach?stream=1 HTTP/1.1\r\nHo",
        b"st: d\r\n\r",
        b"\nin",
    ):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await reader.readexactly(2) == b"in"
    writer.close()


async def test_a_refusal_is_json_and_the_connection_goes_on(api: Api) -> None:
    """What the client sent behind the request is then its next request."""
    ping = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    head, reader, writer = await api.hijack("/containers/nosuch/attach?stream=1", early=ping)
    assert head.startswith(b"HTTP/1.1 404")
    rest = await reader.read()
    assert rest.startswith(b'{"message":"No such container: nosuch"}')
    assert rest.endswith(b"OK")
    writer.close()


async def test_a_failure_behind_the_head_is_told_in_the_stream(api: Api) -> None:
    await api.container()
    api.engine.containers.attach_failure = Conflict("it is gone")
    _, reader, writer = await api.hijack(ATTACH)
    text = b"Error attaching: it is gone\r\n"
    assert await reader.read() == b"\x02\0\0\0" + len(text).to_bytes(4, "big") + text
    writer.close()


async def test_the_session_outlives_the_server(api: Api) -> None:
    """The engine has a socket of its own: nothing of the session passes through the server."""
    await api.container(OpenStdin=True)
    _, reader, writer = await api.hijack(ATTACH)
    while api.engine.containers.last_stream is None:
        await asyncio.sleep(0)
    # Its descriptor here is closed, so the server holds no connection any more.
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    status, _ = await api.ask("GET", "/_ping")
    assert status == 200
    writer.write(b"y" * 1_000_000)
    assert await reader.readexactly(1_000_000) == b"y" * 1_000_000
    writer.close()


async def test_bad_detach_keys(api: Api) -> None:
    await api.container()
    head, reader, writer = await api.hijack(f"{ATTACH}&detachKeys=ctrl-9")
    assert head.startswith(b"HTTP/1.1 400")
    writer.close()
    del reader


async def test_exec(api: Api) -> None:
    await api.container()
    _, answer = await api.ask("POST", "/containers/box/exec", {"Cmd": ["cat"], "AttachStdin": True})
    body = b'{"Detach": false, "Tty": false, "ConsoleSize": [24, 80]}'
    head, reader, writer = await api.hijack(
        f"/v1.41/exec/{answer['Id']}/start", body=body, early=b"early"
    )
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert await reader.readexactly(5) == b"early"
    assert api.engine.execs.console_size == (24, 80)
    writer.write_eof()
    assert await reader.read() == b"[end]"
    writer.close()


async def test_exec_with_the_body_behind_the_head(api: Api) -> None:
    await api.container()
    _, answer = await api.ask("POST", "/containers/box/exec", {"Cmd": ["cat"], "AttachStdin": True})
    reader, writer = await api.raw()
    writer.write(
        f"POST /exec/{answer['Id']}/start HTTP/1.1\r\nHost: d\r\ncontent-length: 17\r\n"
        "Content-Type: application/json\r\n\r\n".encode()
    )
    await writer.drain()
    await asyncio.sleep(0)
    writer.write(b'{"Detach"')
    await writer.drain()
    await asyncio.sleep(0)
    writer.write(b": false}in")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert await reader.readexactly(2) == b"in"
    writer.close()


async def test_exec_with_a_body_in_chunks(api: Api) -> None:
    await api.container()
    _, answer = await api.ask("POST", "/containers/box/exec", {"Cmd": ["cat"], "AttachStdin": True})
    reader, writer = await api.raw()
    writer.write(
        f"POST /exec/{answer['Id']}/start HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: application/json\r\n\r\n2\r\n{}\r\n0\r\n\r\n".encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.write(b"in")
    assert await reader.readexactly(2) == b"in"
    writer.close()


@pytest.mark.parametrize("before", [b"", b"\r\n", b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"])
async def test_early_input_behind_chunks(api: Api, before: bytes) -> None:
    """All in one piece, behind an empty line or another request: the input is not the parser's."""
    await api.container()
    _, answer = await api.ask("POST", "/containers/box/exec", {"Cmd": ["cat"], "AttachStdin": True})
    reader, writer = await api.raw()
    early = b"0\r\n\r\nGET /early HTTP/1.1\r\n\r\n"
    writer.write(
        before
        + f"POST /exec/{answer['Id']}/start HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: application/json\r\n\r\n2\r\n{}\r\n0\r\n\r\n".encode()
        + early
    )
    async with asyncio.timeout(30):
        if before.startswith(b"GET"):
            await reader.readuntil(b"\r\n\r\nOK")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(len(early)) == early
        writer.write_eof()
        assert await reader.read() == b"[end]"
    writer.close()


async def test_a_session_behind_a_refused_one(api: Api) -> None:
    """Two hijacking requests in one piece: the first is refused, the second has the input."""
    await api.container(OpenStdin=True)
    reader, writer = await api.raw()
    refused = "POST /containers/nosuch/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\n"
    taken = f"POST {ATTACH} HTTP/1.1\r\nHost: d\r\n\r\n"
    writer.write(f"{refused}{refused}{taken}early".encode())
    async with asyncio.timeout(30):
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404")
            await reader.readuntil(b"}\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(5) == b"early"
    writer.close()


async def test_an_exec_that_cannot_start(api: Api) -> None:
    await api.container()
    _, answer = await api.ask("POST", "/containers/box/exec", {"Cmd": ["nosuch"], "Tty": True})
    head, reader, writer = await api.hijack(f"/exec/{answer['Id']}/start", body=b'{"Tty":true}')
    assert head.startswith(b"HTTP/1.1 101")
    assert await reader.read() == b'exec: "nosuch": executable file not found in $PATH\r\n'
    writer.close()


async def test_a_client_that_leaves_at_once(api: Api) -> None:
    await api.container(OpenStdin=True)
    for _ in range(5):
        _, writer = await api.raw()
        writer.write(f"POST {ATTACH} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        writer.close()
    assert (await api.ask("GET", "/_ping"))[0] == 200


async def test_attach_by_websocket(api: Api) -> None:
    await api.container(OpenStdin=True, Tty=True)
    url = "http://d/containers/box/attach/ws?stream=1&stdin=1&stdout=1"
    async with api.session.ws_connect(url) as websocket:
        await websocket.send_bytes(b"hello")
        assert await websocket.receive_bytes() == b"hello"
        await websocket.send_str("text")
        assert await websocket.receive_bytes() == b"text"


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the connection were encrypted, so that its socket cannot be handed over."""
    monkeypatch.setattr("sampan.api.hijack.can_be_handed_over", lambda transport: False)


@pytest.mark.usefixtures("relayed")
async def test_a_relayed_session(api: Api) -> None:
    await api.container(OpenStdin=True)
    early = b"early" * 20_000
    _, reader, writer = await api.hijack(ATTACH, early=early)
    assert await reader.readexactly(len(early)) == early
    data = bytes(range(256)) * 20_000
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    writer.write_eof()
    assert await reader.read() == b"[end]"
    writer.close()


@pytest.mark.usefixtures("relayed")
async def test_a_relayed_client_that_leaves(api: Api) -> None:
    await api.container(OpenStdin=True)
    _, reader, writer = await api.hijack(ATTACH)
    writer.write(b"x" * 1_000_000)
    await reader.readexactly(1)
    writer.transport.abort()
    async with asyncio.timeout(30):
        await asyncio.gather(*api.engine.containers.sessions)
    assert (await api.ask("GET", "/_ping"))[0] == 200


@pytest.mark.usefixtures("relayed")
async def test_a_relayed_failure(api: Api) -> None:
    await api.container()
    api.engine.containers.attach_failure = Conflict("it is gone")
    _, reader, writer = await api.hijack(ATTACH)
    assert (await reader.read()).endswith(b"Error attaching: it is gone\r\n")
    writer.close()


async def test_a_shim_that_ends_meanwhile_ends_the_stream(api: Api) -> None:
    await api.container()
    api.engine.containers.attach_failure = Unavailable("the shim is gone")
    _, reader, writer = await api.hijack(ATTACH)
    assert await reader.read() == b""
    writer.close()


async def test_the_server_reads_nothing_after_the_hand_over(api: Api) -> None:
    """The socket is the session's then, also in the moments until our descriptor is closed."""
    await api.container(OpenStdin=True)
    sessions = [await api.hijack(ATTACH) for _ in range(20)]
    for _ in range(50):
        for _, _, writer in sessions:
            writer.write(b"0123456789")
        await asyncio.sleep(0)
    for _, reader, writer in sessions:
        writer.write_eof()
        assert await reader.read() == b"0123456789" * 50 + b"[end]"
        writer.close()


async def test_input_the_moment_the_answer_comes(api: Api) -> None:
    await api.container(OpenStdin=True)
    for number in range(50):
        reader, writer = await api.raw()
        writer.write(f"POST {ATTACH} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        sent = b""
        while b"\r\n\r\n" not in reader._buffer:  # type: ignore[attr-defined]
            writer.write(b"%d," % number)
            sent += b"%d," % number
            await asyncio.sleep(0)
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        assert await reader.read() == sent + b"[end]"
        writer.close()
