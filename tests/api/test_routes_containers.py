"""`/containers` and `/exec` over the engine in memory: request → status → fields."""

from __future__ import annotations

import asyncio
import json

import pytest

from api.fakes import Api
from sampan.api.routes.streams import tail_count
from sampan.errors import RuntimeFailure, Unavailable


async def test_a_life(api: Api) -> None:
    identity = await api.container()
    assert (await api.ask("POST", "/containers/box/start"))[0] == 204
    status, answer = await api.ask("DELETE", "/containers/box")
    assert status == 409
    assert "You cannot remove a running container" in answer["message"]
    assert (await api.ask("POST", f"/containers/{identity[:12]}/kill"))[0] == 204
    assert await api.ask("POST", "/containers/box/wait") == (
        200,
        {"Error": None, "StatusCode": 137},
    )
    assert (await api.ask("DELETE", "/containers/box?v=1&force=0"))[0] == 204
    assert (await api.ask("GET", "/containers/box/json"))[0] == 404


async def test_create(api: Api) -> None:
    status, answer = await api.ask("POST", "/containers/create?name=a", {"Image": "nosuch"})
    assert (status, answer) == (404, {"message": "No such image: nosuch:latest"})
    status, answer = await api.ask("POST", "/containers/create", {})
    assert (status, answer["message"]) == (
        400,
        "config cannot be empty in order to create a container",
    )
    await api.container("taken")
    status, answer = await api.ask("POST", "/containers/create?name=taken", {"Image": "busybox"})
    assert status == 409
    assert answer["message"].startswith('Conflict. The container name "/taken"')


async def test_a_start_that_fails(api: Api) -> None:
    await api.container()
    api.engine.containers.start_failure = RuntimeFailure("exec", 'exec: "x": permission denied')
    assert await api.ask("POST", "/containers/box/start") == (
        400,
        {"message": 'exec: "x": permission denied'},
    )
    api.engine.containers.start_failure = RuntimeFailure("mount", "mount /a: no such device")
    assert (await api.ask("POST", "/containers/box/start"))[0] == 500


async def test_wait_sends_its_head_when_it_waits(api: Api) -> None:
    await api.container()
    async with api.session.post("http://d/v1.42/containers/box/wait?condition=next-exit") as answer:
        assert answer.status == 200
        await api.ask("POST", "/containers/box/start")
        await api.ask("POST", "/containers/box/kill")
        assert json.loads(await answer.read()) == {"StatusCode": 137}
    status, refusal = await api.ask("POST", "/containers/box/wait?condition=foo")
    assert (status, refusal["message"]) == (400, 'invalid condition: "foo"')


async def test_a_client_that_waits_no_more_is_forgotten(api: Api) -> None:
    await api.container()
    container = api.engine.containers.get("box")
    reader, writer = await api.raw()
    writer.write(b"POST /containers/box/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert container._waiters
    writer.close()
    async with asyncio.timeout(30):
        while container._waiters:
            await asyncio.sleep(0.001)


async def test_list_and_filters(api: Api) -> None:
    await api.container("a", Labels={"x": "y"})
    await api.container("b")
    await api.ask("POST", "/containers/b/start")

    async def listed(query: str) -> list[str]:
        status, answer = await api.ask("GET", f"/containers/json?{query}")
        assert status == 200, answer
        return sorted(entry["Names"][0] for entry in answer)

    assert await listed("") == ["/b"]
    assert await listed("all=1") == ["/a", "/b"]
    assert await listed("all=true&limit=1") == ["/b"]
    assert await listed("limit=-1") == ["/b"]
    assert await listed('filters={"label":{"x=y":true}}&all=1') == ["/a"]
    assert await listed('filters={"status":["created"]}') == ["/a"]
    assert await listed('filters={"ancestor":["busybox"]}&all=1') == ["/a", "/b"]
    assert await listed('filters={"ancestor":["nosuch"]}&all=1') == []
    assert await listed('filters={"name":{"a":false}}&all=1') == ["/a", "/b"]
    assert (await api.ask("GET", '/containers/json?filters={"status":["x"]}'))[0] == 400


async def test_top_resize_prune(api: Api) -> None:
    await api.container()
    assert await api.ask("GET", "/containers/box/top?ps_args=-o%20pid") == (
        200,
        {"Titles": ["PID", "CMD"], "Processes": [["1", "-o pid"]]},
    )
    assert (await api.ask("POST", "/containers/box/resize?h=24&w=80"))[0] == 200
    assert api.engine.containers.resized == [(24, 80)]
    for query in ("", "h=a&w=1", "h=70000&w=1", "h=-1&w=1", "h=1"):
        assert (await api.ask("POST", f"/containers/box/resize?{query}"))[0] == 400, query
    assert await api.ask("POST", "/containers/prune") == (
        200,
        {"ContainersDeleted": None, "SpaceReclaimed": 0},
    )
    assert (await api.ask("POST", '/containers/prune?filters={"x":["y"]}'))[0] == 400


async def test_logs(api: Api) -> None:
    await api.container()
    async with api.session.get("http://d/v1.42/containers/box/logs?stdout=1") as answer:
        assert answer.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        assert await answer.read() == b"\x01\0\0\0\0\0\0\x06hello\n"
    status, refusal = await api.ask("GET", "/containers/box/logs")
    assert (status, refusal["message"]) == (
        400,
        "Bad parameters: you must choose at least one stream",
    )
    assert (await api.ask("GET", "/containers/box/logs?stdout=1&since=x"))[0] == 400
    assert (await api.ask("GET", "/containers/nosuch/logs?stdout=1"))[0] == 404


async def test_a_client_that_leaves_a_followed_log(api: Api) -> None:
    """The log goes on without a line, so only the connection's end can tell."""
    await api.container()
    api.engine.containers.log_goes_on = True
    reader, writer = await api.raw()
    writer.write(b"GET /containers/box/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"hello\n")
    assert not api.engine.containers.log_closed.is_set()
    writer.close()
    async with asyncio.timeout(30):
        await api.engine.containers.log_closed.wait()


@pytest.mark.parametrize("failure", [Unavailable("the disk is gone"), ZeroDivisionError("a bug")])
async def test_a_log_that_breaks_off_has_no_end(api: Api, failure: Exception) -> None:
    """A head that said 200 cannot be taken back, so the body ends without its last chunk."""
    await api.container()
    api.engine.containers.log_failure = failure
    reader, writer = await api.raw()
    writer.write(b"GET /containers/box/logs?stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"hello\n" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    writer.close()


@pytest.mark.parametrize(
    ("text", "count"), [("all", None), ("", None), ("5", 5), ("0", 0), ("-1", None), ("x", None)]
)
def test_tail(text: str, count: int | None) -> None:
    assert tail_count(text) == count


async def test_execs(api: Api) -> None:
    await api.container()
    assert (await api.ask("POST", "/containers/box/exec", {}))[0] == 400
    assert (await api.ask("POST", "/containers/nosuch/exec", {"Cmd": ["a"]}))[0] == 404
    assert (await api.ask("GET", "/exec/nosuch/json"))[0] == 404
    assert (await api.ask("POST", "/exec/nosuch/start", {}))[0] == 404
    status, answer = await api.ask("POST", "/containers/box/exec", {"Cmd": "a"})
    assert status == 201
    assert await api.ask("POST", f"/exec/{answer['Id']}/start", {"Detach": True}) == (200, None)
    assert (await api.ask("POST", f"/exec/{answer['Id']}/resize?h=1&w=1"))[0] == 200
    status, answer = await api.ask("POST", "/exec/x/start", {"Detach": "x"})
    assert status == 400
    assert "ExecStart.Detach" in answer["message"]
