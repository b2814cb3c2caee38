"""Any query and any body at every route: an answer in Docker's shape, never a failure of ours."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.fakes import FakeEngine
from sampan.api.application import docker_api
from sampan.engine.model import ContainerConfig, ExecConfig, HostConfig

# Every name of a parameter that some route reads, and one that none does.
NAMES = [
    *(
        "all",
        "before",
        "changes",
        "condition",
        "container",
        "dangling-only",
        "detachKeys",
        "digests",
    ),
    *("filters", "follow", "force", "fromImage", "fromSrc", "h", "images-only", "limit", "link"),
    *("logs", "message", "name", "names", "noprune", "one-shot", "platform", "ps_args", "quiet"),
    *("repo", "shared-size", "signal", "since", "size", "stderr", "stdin", "stdout", "stream"),
    *("t", "tag", "tail", "term", "timestamps", "type", "until", "v", "verbose", "w", "x"),
]
HOSTILE = [
    *(
        "",
        "0",
        "1",
        "-1",
        "true",
        "nosuch",
        "9" * 5000,
        "-" + "9" * 30,
        "1e400",
        "nan",
        "inf",
        "1.5",
    ),
    *("0x10", "1_0", "٣", "\0", "\n", "%", "\ud800", "../..", "a" * 3000, "ctrl-", "ctrl-@,ctrl-"),
    *(
        "2026-01-01T00:00:00.999999999999Z",
        "9999-12-31T23:59:59+23:59",
        "0001-01-01T00:00:00-23:59",
    ),
    *("10m", "-5h", "99999999999h", "1h1h", "[]", "{}", "null", "linux/", "os/a/b/c/d"),
    *('{"status":1}', '{"label":{"a":true}}', '{"id":["["]}', '{"x":[null]}', '{"exited":["x"]}'),
    *('{"until":["x"]}', '{"since":["\\u0000"]}', '{"name":["(((("]}', "[" * 2000, '{"a":' * 500),
]
values = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20))
documents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), values),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(
            ["Image", "Cmd", "HostConfig", "Binds", "Tty", "ConsoleSize", "Env", "Memory", "Name",
             "NetworkingConfig", "Detach", "Labels", "Mounts", "LogConfig", "Ulimits", "User"]
        ), values), inner, max_size=4)
    ),
    max_leaves=8,
)  # fmt: skip


def spelled(document: Any) -> bytes:
    return json.dumps(document).encode()


bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    documents.map(spelled),
    st.sampled_from(
        [b"[" * 100_000, b'{"Image":"busybox","HostConfig":' + b"{" * 50, b"{}{}", b"\xff"]
    ),
)


class Served:
    """The API over a fresh fake engine, on a socket and a loop of its own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.runner = asyncio.Runner()
        self.runner.run(self._start())
        self.routes = sorted(_patterns(self.server._router))

    async def _start(self) -> None:
        self.engine = FakeEngine()
        self.server = docker_api(self.engine)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        self.listening = await loop.create_unix_server(self.server.protocol_factory(), self.path)
        containers = self.engine.containers
        await containers.create(
            name="box", config=ContainerConfig(image="busybox"), host_config=HostConfig(),
            networking=None, platform=None,
        )  # fmt: skip
        self.container = containers.get("box")
        self.exec = await self.engine.execs.create("box", ExecConfig(cmd=["cat"]))

    def ask(self, request: bytes) -> tuple[int, bytes]:
        return self.runner.run(self._ask(request))

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and, of an answer that has a length, the body."""
        self.engine.containers.all = {self.container.id: self.container}
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            async with asyncio.timeout(30):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: ([0-9]+)", head)
                body = (
                    await reader.readexactly(int(length[1]))
                    if length and request[:5] != b"HEAD "
                    else b""
                )
        finally:
            writer.close()
        return int(head.split()[1]), body

    def close(self) -> None:
        self.listening.close()
        self.runner.run(self.server.close())
        for task in self.engine.containers.sessions:
            task.cancel()
        self.runner.close()


def _patterns(router: Any) -> set[tuple[str, str]]:
    found, waiting = set(), [*router._roots.values()]
    while waiting:
        node = waiting.pop()
        if node.route is not None:
            found.add((node.route.method, node.route.pattern))
        waiting += [*node.children.values(), *filter(None, (node.one, node.rest))]
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(str(tmp_path_factory.mktemp("hostile") / "api.sock"))
    yield served
    served.close()


def encoded(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_query_and_body(served: Served, data: st.DataObject) -> None:
    method, pattern = data.draw(st.sampled_from(served.routes))
    value = data.draw(st.sampled_from(["box", served.exec, "busybox", *HOSTILE]))
    path = re.sub(r"\{[^}]*\}", lambda _: encoded(value) or "x", pattern)
    query = data.draw(st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=4))
    body = data.draw(bodies)
    version = data.draw(st.sampled_from(["", "/v1.12", "/v1.24", "/v1.41", "/v1.55"]))
    target = f"{version}{path}?{'&'.join(f'{name}={encoded(text)}' for name, text in query)}"
    request = (
        f"{method} {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    status, answer = served.ask(request)
    assert status < 500 or status in (501, 503), (request, answer)
    assert b"Traceback" not in answer
    assert b"object has no attribute" not in answer
    if status >= 400 and version not in ("/v1.12",) and method != "HEAD":
        assert set(json.loads(answer)) == {"message"}, answer


NUMBERS_AND_TIMES = ("since", "until", "tail", "t", "h", "w", "limit", "filters", "signal")


@pytest.mark.parametrize("name", NUMBERS_AND_TIMES)
def test_each_number_and_time(served: Served, name: str) -> None:
    """One value at a time at every route, so that no other parameter is refused before it."""
    for method, pattern in served.routes:
        exec_route = pattern.startswith("/exec/")
        path = re.sub(r"\{[^}]*\}", served.exec if exec_route else "box", pattern)
        for value in ("9" * 5000, "9" * 400 + "h", "٣", "²", "0001-01-01", "9999-12-31T23:59:59"):
            request = (
                f"{method} {path}?stdout=1&w=1&{name}={encoded(value)} HTTP/1.1\r\nHost: d\r\n"
                "Connection: close\r\nContent-Length: 0\r\n\r\n"
            )
            status, answer = served.ask(request.encode())
            assert status < 500 or status in (501, 503), (request, answer)
