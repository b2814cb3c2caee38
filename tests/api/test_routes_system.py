"""`/events`, `/info`, `/version`."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from api.fakes import Api
from sampan.api.routes.system import event_stream_type


async def test_events_as_they_come(api: Api) -> None:
    async with api.session.get("http://d/events") as stream:
        assert stream.headers["Content-Type"] == "application/json"
        await api.container("first")
        line = await stream.content.readline()
    event = json.loads(line)
    assert (event["Type"], event["Action"]) == ("container", "create")
    assert event["Actor"]["Attributes"]["name"] == "first"
    assert event["time"] == event["timeNano"] // 1_000_000_000
    assert event["scope"] == "local"


async def test_nothing_is_missed_after_the_head(api: Api) -> None:
    """Whoever has the head is subscribed."""
    for number in range(20):
        async with api.session.get("http://d/events") as stream:
            api.engine.events.emit("container", "create", str(number), {})
            async with asyncio.timeout(30):
                assert json.loads(await stream.content.readline())["Actor"]["ID"] == str(number)


async def test_past_events_with_filters(api: Api) -> None:
    # Names that are no beginning of an ID.
    await api.container("one")
    await api.container("two")
    filters = '{"container":{"two":true},"event":["create"]}'
    async with api.session.get(
        f"http://d/events?since=0.5&until={time.time()}&filters={filters}"
    ) as stream:
        lines = (await stream.read()).splitlines()
    assert [json.loads(line)["Actor"]["Attributes"]["name"] for line in lines] == ["two"]
    async with api.session.get(f"http://d/events?since=0&until={time.time()}") as stream:
        assert len((await stream.read()).splitlines()) == 2
    assert await api.ask("GET", "/events?since=0&until=0") == (200, None)
    assert (await api.ask("GET", '/events?filters={"foo":["x"]}'))[0] == 400
    assert (await api.ask("GET", "/events?since=yesterday"))[0] == 400


async def test_a_client_that_leaves_is_unsubscribed(api: Api) -> None:
    reader, writer = await api.raw()
    writer.write(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert api.engine.events.listeners == 1
    writer.close()
    async with asyncio.timeout(30):
        while api.engine.events.listeners:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json-seq", "application/json-seq"),
        ("text/html, application/x-ndjson;q=0.5", "application/x-ndjson"),
        ("application/jsonl", "application/jsonl"),
    ],
)
def test_the_form_of_the_stream(accept: str, expected: str) -> None:
    assert event_stream_type(accept) == expected


async def test_json_sequences(api: Api) -> None:
    """RFC 7464: a record separator before each document."""
    await api.container()
    async with api.session.get(
        f"http://d/events?since=1&until={time.time()}", headers={"Accept": "application/json-seq"}
    ) as stream:
        assert stream.headers["Content-Type"] == "application/json-seq"
        assert (await stream.read()).startswith(b'\x1e{"')


async def test_info_by_version(api: Api) -> None:
    _, newest = await api.ask("GET", "/v1.55/info")
    _, old = await api.ask("GET", "/v1.41/info")
    assert ("KernelMemory" in newest, "KernelMemory" in old) == (False, True)
    assert ("Expected" in newest["ContainerdCommit"], "Expected" in old["ContainerdCommit"]) == (
        False,
        True,
    )
    assert (await api.ask("GET", "/version"))[1]["MinAPIVersion"] == "1.12"
