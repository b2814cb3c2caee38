"""`kill -9` of the daemon: what a client was told of, the next daemon tells once more and no less."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from support.engines import IMAGE, SampanEngine
from support.http import Connection

CYCLES = 4


def stream(connection: Connection, **query: str) -> Iterator[dict[str, Any]]:
    """Events, until the daemon ends."""
    connection.start("GET", "/events", query=query)
    status, _, headers = connection.read_head()
    assert status == 200
    text = b""
    try:
        for chunk in connection.body(status, headers):
            text += chunk
            *lines, text = text.split(b"\n")
            yield from map(json.loads, lines)
    except (ConnectionError, OSError):
        return


def busy(engine: SampanEngine, stop: threading.Event) -> None:
    """Make events as fast as can be, whatever becomes of the daemon."""
    while not stop.is_set():
        try:
            body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}}
            made = engine.post("/containers/create", body).json
            engine.delete(f"/containers/{made['Id']}")
        except (OSError, ValueError, TypeError):
            continue


def test_each_event_once_over_kills(own_sampan: SampanEngine) -> None:
    """A client that goes on behind the last ID it saw misses nothing and sees nothing twice."""
    engine = own_sampan
    seen: list[dict[str, Any]] = []
    cursor = "e0"
    for _ in range(CYCLES):
        stop = threading.Event()
        worker = threading.Thread(target=busy, args=(engine, stop))
        worker.start()
        with engine.connect() as connection:
            for event in stream(connection, since=cursor):
                seen.append(event)
                cursor = event["Cursor"]
                if len(seen) % 40 == 0:
                    engine.kill()
        stop.set()
        worker.join()
        engine.start()
    numbers = [int(event["Cursor"][1:]) for event in seen]
    assert numbers == list(range(1, len(numbers) + 1))
    with engine.connect() as connection:
        past = stream(connection, since="1")
        again = [next(past) for _ in seen]
    assert again == seen


def test_who_asked(own_sampan: SampanEngine) -> None:
    """The client of the request; nobody for an end that came by itself."""
    engine = own_sampan
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    identity = engine.post("/containers/create", body, name="who").json["Id"]
    engine.post(f"/containers/{identity}/start")
    engine.post(f"/containers/{identity}/wait")
    engine.delete(f"/containers/{identity}")
    by = {}
    with engine.connect() as connection:
        for event in stream(connection, since="e0", filters='{"container":["who"]}'):
            by[event["Action"]] = event.get("By")
            if event["Action"] == "destroy":
                break
    me = {"Uid": os.geteuid(), "Gid": os.getegid(), "Pid": os.getpid()}
    assert by == {"create": me, "start": me, "die": None, "destroy": me}
