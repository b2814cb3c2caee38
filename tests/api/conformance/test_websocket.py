"""Attach by WebSocket, on dockerd too; and a gigabyte through an exec, both ways at once."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

import pytest
from aiohttp import (
    ClientSession,
    ClientWebSocketResponse,
    UnixConnector,
    WSMsgType,
    WSServerHandshakeError,
)

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.waiting import wait_for

LIMIT_S = 60.0
GIGABYTE = 1 << 30


@asynccontextmanager
async def attached(
    target: Engine, name: str, query: str, version: str = ""
) -> AsyncIterator[ClientWebSocketResponse]:
    async with (
        asyncio.timeout(LIMIT_S),
        ClientSession(connector=UnixConnector(target.socket)) as session,
        session.ws_connect(
            f"http://d{version}/containers/{name}/attach/ws?{query}",
            origin="http://d",  # without one dockerd's library refuses
            max_msg_size=0,
        ) as websocket,
    ):
        yield websocket


async def received(websocket: ClientWebSocketResponse, size: int) -> bytes:
    """So many bytes, in as many messages as they come."""
    data = b""
    while len(data) < size:
        message = await websocket.receive()
        assert message.type in (WSMsgType.BINARY, WSMsgType.TEXT), (message, data)
        data += message.data if isinstance(message.data, bytes) else message.data.encode()
    return data


def start(target: Engine, name: str, script: str, *, tty: bool = False) -> None:
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "OpenStdin": True, "StdinOnce": True, "Tty": tty}  # fmt: skip
    assert target.post("/containers/create", body, name=name).status == 201
    assert target.post(f"/containers/{name}/start").status == 204


def state(target: Engine, name: str) -> tuple[str, int]:
    found = target.get(f"/containers/{name}/json").json["State"]
    return found["Status"], found["ExitCode"]


@pytest.mark.parametrize("origin", ["http://evil.example", "https://evil.example:443", "null"])
async def test_pages_of_other_origins_are_refused(
    target: Engine, unused_name: str, only_sampan: None, origin: str
) -> None:
    """A browser lets any page open a WebSocket to an engine that listens on TCP; dockerd lets it in."""
    start(target, unused_name, "cat")
    async with ClientSession(connector=UnixConnector(target.socket)) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect(
                f"http://d/containers/{unused_name}/attach/ws?stream=1", origin=origin
            )
    assert caught.value.status == 403


async def test_both_ways(target: Engine, unused_name: str) -> None:
    """Bytes without frames; the end of the container ends the connection."""
    start(target, unused_name, 'while read line; do echo "out $line"; test "$line" != end || exit 5; done')  # fmt: skip
    async with attached(target, unused_name, "stream=1&stdin=1&stdout=1&stderr=1") as websocket:
        await websocket.send_bytes(b"hello\n")
        assert await received(websocket, 10) == b"out hello\n"
        await websocket.send_str("text\nend\n")
        assert await received(websocket, 17) == b"out text\nout end\n"
        message = await websocket.receive()
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
    wait_for(lambda: state(target, unused_name) == ("exited", 5), "its end")


async def test_stderr_comes_too(target: Engine, unused_name: str) -> None:
    start(target, unused_name, "read line; echo lost >&2; exit 3")
    async with attached(target, unused_name, "stream=1&stdin=1&stdout=1&stderr=1") as websocket:
        await websocket.send_bytes(b"go\n")
        assert await received(websocket, 5) == b"lost\n"


@pytest.mark.parametrize(
    ("version", "kind"), [("/v1.27", WSMsgType.TEXT), ("/v1.28", WSMsgType.BINARY)]
)
async def test_kind_of_messages(
    target: Engine, unused_name: str, version: str, kind: WSMsgType
) -> None:
    start(target, unused_name, "read line; echo $line; sleep 60")
    query = "stream=1&stdin=1&stdout=1&stderr=1"
    async with attached(target, unused_name, query, version) as websocket:
        await websocket.send_bytes(b"go\n")
        assert (await websocket.receive()).type is kind


async def test_detach_keys(target: Engine, unused_name: str) -> None:
    start(target, unused_name, "cat", tty=True)
    query = "stream=1&stdin=1&stdout=1&stderr=1&detachKeys=ctrl-x,q"
    async with attached(target, unused_name, query) as websocket:
        await websocket.send_bytes(b"hello\r")
        assert (await received(websocket, 7)).startswith(b"hello\r\n")
        await websocket.send_bytes(b"\x18q")
        while (message := await websocket.receive()).type in (WSMsgType.BINARY, WSMsgType.TEXT):
            pass
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
    assert state(target, unused_name) == ("running", 0)


async def test_what_was_sent_arrives(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """A client that closes at once behind its input loses none of it."""
    start(target, unused_name, "wc -c")
    data = os.urandom(1 << 16)
    async with attached(target, unused_name, "stream=1&stdin=1") as websocket:
        for _ in range(64):
            await websocket.send_bytes(data)
    wait_for(lambda: state(target, unused_name) == ("exited", 0), "the end of its input")
    assert docker("logs", unused_name).line == str(len(data) * 64)


async def test_a_watcher_that_leaves(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """Who only looks on ends nothing by leaving."""
    start(target, unused_name, 'echo up; read line; echo "$line" > /line; exec sleep 600')
    # What comes between the log's end and the stream's begin is in neither, as with dockerd.
    wait_for(lambda: docker("logs", unused_name).out == "up\n", "its line in the log")
    async with attached(target, unused_name, "stream=1&logs=1&stdout=1") as websocket:
        assert await received(websocket, 3) == b"up\n"
    async with attached(target, unused_name, "stream=1&stdin=1&stdout=1") as websocket:
        await websocket.send_bytes(b"still there\n")
        assert state(target, unused_name) == ("running", 0)


def test_a_plain_request_is_refused(target: Engine, unused_name: str) -> None:
    start(target, unused_name, "cat")
    assert target.get(f"/containers/{unused_name}/attach/ws", stream=1).status >= 400


def test_a_gigabyte_through_exec(target: Engine, unused_name: str) -> None:
    """In and out at once, byte for byte."""
    start(target, unused_name, "sleep 600")
    block = os.urandom((1 << 20) - 1)  # no divisor of any buffer
    total = GIGABYTE if target.name == "sampan" else GIGABYTE >> 3
    body = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "Tty": False}
    identity = target.post(f"/containers/{unused_name}/exec", body).json["Id"]
    with target.connect(timeout_s=LIMIT_S) as client:
        client.hijack(f"/exec/{identity}/start", body={})

        def send() -> None:
            left = total
            while left:
                client.sock.sendall(memoryview(block)[:left])
                left -= min(left, len(block))
            client.sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            with client.sock.makefile("rb", buffering=1 << 20) as stream:
                assert_same(client.buffer, stream, block, total)
        finally:
            client.close()
            sender.join()
    assert target.get(f"/exec/{identity}/json").json["ExitCode"] == 0


def assert_same(head: bytes, stream: BinaryIO, block: bytes, total: int) -> None:
    """The stream's frames carry `total` bytes of `block`, over and over, and then it ends."""
    doubled, position = block + block, 0

    def take(size: int) -> bytes:
        nonlocal head
        data, head = head[:size], head[size:]
        return data + stream.read(size - len(data))

    while header := take(8):
        kind, length = struct.unpack(">BxxxI", header)
        data, offset = take(length), position % len(block)
        assert kind == 1 and data == doubled[offset : offset + length], f"after {position} bytes"
        position += length
    assert position == total
