"""`kill -9` of the daemon: what a client was told of, the next daemon tells once more and no less."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
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


def told(engine: SampanEngine, identity: str) -> list[str]:
    """What was told of a container, in order."""
    engine.post("/containers/create", {"Image": IMAGE}, name="mark")
    mark = engine.get("/containers/mark/json").json["Id"]
    engine.delete("/containers/mark")
    found = []
    with engine.connect() as connection:
        for event in stream(connection, since="e0", filters='{"type":["container"]}'):
            if event["Actor"]["ID"] == identity:
                found.append(event["Action"])
            if event["Actor"]["ID"] == mark and event["Action"] == "destroy":
                return found
    raise AssertionError("the stream ended early")


@contextlib.contextmanager
def killed(engine: SampanEngine) -> Iterator[sqlite3.Connection]:
    """The database of a daemon that was killed, and that comes back."""
    engine.kill()
    with contextlib.closing(sqlite3.connect(f"{engine.data_root}/engine.db")) as database, database:
        yield database
    engine.start()


def test_killed_between_a_row_and_its_event(own_sampan: SampanEngine) -> None:
    """What was not told of a making or a removal is told by the next daemon, and nothing twice."""
    engine = own_sampan
    ids = [
        str(engine.post("/containers/create", {"Image": IMAGE}, name=name).json["Id"])
        for name in ("told", "untold", "fresh")
    ]
    gone, going, here = ids
    removing = "UPDATE containers SET record = CAST(json_set(record, '$.state.status', 'removing') AS BLOB) WHERE id = ?"  # fmt: skip
    with killed(engine) as database:
        row = database.execute("SELECT * FROM containers WHERE id = ?", (gone,)).fetchone()
        # Made, and the daemon ended before it said so.
        new = here[:-4] + "beef"
        database.execute(
            "INSERT INTO containers SELECT ?1, 'new', created_ns, "
            "CAST(json_set(record, '$.id', ?1, '$.name', 'new') AS BLOB) FROM containers WHERE id = ?2",
            (new, here),
        )
    assert engine.delete(f"/containers/{gone}").status == 204
    with killed(engine) as database:
        # Told that it is gone, and the row still there; and the other way round.
        database.execute(f"INSERT INTO containers VALUES ({', '.join('?' * len(row))})", row)
        database.execute(removing, (gone,))
        database.execute(removing, (going,))
    listed = {container["Id"] for container in engine.get("/containers/json", all=True).json}
    assert listed == {here, new}
    assert told(engine, gone) == ["create", "destroy"]
    assert told(engine, going) == ["create", "destroy"]
    with killed(engine):
        pass
    assert told(engine, new) == ["create"]
    assert told(engine, here) == ["create"]
    assert engine.delete(f"/containers/{new}").status == 204
    assert told(engine, new) == ["create", "destroy"]
