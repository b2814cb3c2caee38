"""Probes without a process: what a target may be, and answers of real servers in this namespace."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from sampan.engine import health
from sampan.engine.health_probes import LOCALHOST, Target, probe, take_wishes, target
from sampan.engine.model import ContainerConfig, HealthConfig, HostConfig
from sampan.errors import InvalidArgument

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("test", "addresses", "port"),
    [
        (["TCP", "80"], LOCALHOST, 80),
        (["TCP", "10.0.0.1:65535"], ("10.0.0.1",), 65535),
        (["TCP", "[::1]:80"], ("::1",), 80),
        (["HTTP", "http://localhost"], LOCALHOST, 80),
        (["HTTP", "http://127.0.0.1:8080/a?b=c"], ("127.0.0.1",), 8080),
        (["HTTP", "http://[::1]:8080/"], ("::1",), 8080),
    ],
)
def test_targets(test: list[str], addresses: tuple[str, ...], port: int) -> None:
    found = target(HealthConfig(test=test))
    assert found is not None
    assert (found.addresses, found.port) == (addresses, port)
    assert bool(found.request) is (test[0] == "HTTP")


def test_request() -> None:
    found = target(HealthConfig(test=["HTTP", "http://127.0.0.1:8080/a?b=c"]))
    assert found is not None
    lines = found.request.split(b"\r\n")
    assert lines[:2] == [b"GET /a?b=c HTTP/1.1", b"Host: 127.0.0.1:8080"]


@pytest.mark.parametrize("test", [[], ["NONE"], ["CMD", "x"], ["CMD-SHELL", "x"]])
def test_other_checks(test: list[str]) -> None:
    assert target(HealthConfig(test=test)) is None


@pytest.mark.parametrize(
    "test",
    [
        ["TCP"],
        ["TCP", ""],
        ["TCP", "0"],
        ["TCP", "65536"],
        ["TCP", "99999999999999999999"],
        ["TCP", "web:80"],
        ["TCP", "٣"],
        ["HTTP"],
        ["HTTP", "localhost"],
        ["HTTP", "https://localhost/"],
        ["HTTP", "http://example.com/"],
        ["HTTP", "http://localhost:99999/"],
        ["HTTP", "http://u:p@localhost/"],
        ["HTTP", "http://localhost/ HTTP/1.1"],
        ["HTTP", "http://localhost/\r\nX: y"],
        ["HTTP", "http://[::1/"],
    ],
)
def test_no_targets(test: list[str]) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid health check: "):
        target(HealthConfig(test=test))


def test_wishes() -> None:
    """An annotation or a label becomes the check; two are a contradiction."""
    config = ContainerConfig(labels={"sampan.health-tcp": "80"})
    take_wishes(config, HostConfig())
    assert config.healthcheck == HealthConfig(test=["TCP", "80"])
    assert health.is_checked(config)
    take_wishes(config, HostConfig())
    config = ContainerConfig(healthcheck=HealthConfig(interval=7))
    take_wishes(config, HostConfig(annotations={"sampan.health-http": "http://localhost/"}))
    assert config.healthcheck == HealthConfig(test=["HTTP", "http://localhost/"], interval=7)
    with pytest.raises(InvalidArgument, match="one health check"):
        take_wishes(
            ContainerConfig(healthcheck=HealthConfig(test=["CMD", "x"])),
            HostConfig(annotations={"sampan.health-tcp": "80"}),
        )


@pytest.fixture
def here() -> Iterator[int]:
    """The pidfd of this process."""
    fd = os.pidfd_open(os.getpid())
    yield fd
    os.close(fd)


Answer = bytes


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """A server that answers each request with the test's bytes; its port."""
    answer: Answer = request.param

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1]
    listening.close()


@pytest.mark.parametrize(
    ("server", "exit_code", "text"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nbody", 0, "HTTP/1.1 200 OK"),
        (b"HTTP/1.0 302 Found\r\n\r\n", 0, "HTTP/1.0 302 Found"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 1, "HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 500 \xff\r\n\r\n", 1, "HTTP/1.1 500 \ufffd"),
        (b"", 1, "no HTTP answer: ''"),
        (b"SSH-2.0-x\r\n", 1, "no HTTP answer: 'SSH-2.0-x'"),
        (b"HTTP/1.1 x y\r\n", 1, "HTTP/1.1 x y"),
        (b"x" * 100_000, 1, f"no HTTP answer: {'x' * 80!r}"),
    ],
    indirect=["server"],
)
async def test_answers(server: int, here: int, exit_code: int, text: str) -> None:
    wanted = target(HealthConfig(test=["HTTP", f"http://localhost:{server}/"]))
    assert wanted is not None
    assert await probe(wanted, here) == (exit_code, text)


@pytest.mark.parametrize("server", [b""], indirect=True)
async def test_a_connection(server: int, here: int) -> None:
    found = await probe(Target(LOCALHOST, server), here)
    assert found == (0, f"connected to 127.0.0.1 port {server}")


async def test_nobody_listens(here: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = await probe(Target(LOCALHOST, port), here)
    assert found == (1, f"connect to 127.0.0.1 port {port}: Connection refused")
