"""The machine's clock is set while containers run: no end is lost, nothing is taken for something else.

The clock itself is everybody's, so it stays: the start that the database has is moved instead, which is the same to
the next daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from typing import Any

import pytest

from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for

DAY_NS = 86_400 * 10**9


def state(engine: SampanEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.get(f"/containers/{name}/json").json["State"]
    return found


def begin(engine: SampanEngine, name: str, script: str) -> None:
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none", "Binds": [f"{engine.directory}:/shared"]}}  # fmt: skip
    assert engine.post("/containers/create", body, name=name).status == 201
    assert engine.post(f"/containers/{name}/start").status == 204


def set_clock(engine: SampanEngine, by_ns: int) -> None:
    """As if all that was noted until now had been noted by a clock that was ahead by so much."""
    with contextlib.closing(sqlite3.connect(f"{engine.data_root}/engine.db")) as database:
        for identity, record in database.execute("SELECT id, record FROM containers").fetchall():
            document = json.loads(record)
            for name in ("started_ns", "finished_ns"):
                if document["state"].get(name):
                    document["state"][name] += by_ns
            with database:
                database.execute("UPDATE containers SET record = ? WHERE id = ?", (json.dumps(document).encode(), identity))  # fmt: skip
            path = f"{engine.data_root}/containers/{identity}/exit.json"
            if os.path.exists(path):
                with open(path) as file:
                    ended = json.load(file)
                if ended["started_at_ns"]:
                    ended["started_at_ns"] += by_ns
                with open(path, "w") as file:
                    json.dump(ended, file)


@pytest.mark.parametrize("by_ns", [DAY_NS, -DAY_NS], ids=["back", "forward"])
def test_while_no_daemon_runs(own_sampan: SampanEngine, by_ns: int) -> None:
    engine = own_sampan
    begin(engine, "ended", "exit 6")
    assert engine.post("/containers/ended/wait").json["StatusCode"] == 6
    begin(engine, "ending", "until test -e /shared/go; do usleep 5000; done; exit 7")
    begin(engine, "running", "sleep 600")
    pid, running = state(engine, "ending")["Pid"], state(engine, "running")["Pid"]
    engine.kill()
    with open(f"{engine.directory}/go", "w"):
        pass
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the container to end", timeout_s=30)
    set_clock(engine, by_ns)
    engine.start()
    assert (state(engine, "running")["Status"], state(engine, "running")["Pid"]) == ("running", running)  # fmt: skip
    assert (state(engine, "ending")["Status"], state(engine, "ending")["ExitCode"]) == ("exited", 7)
    assert (state(engine, "ended")["Status"], state(engine, "ended")["ExitCode"]) == ("exited", 6)
    past = {"since": "e0", "until": f"{time.time():.9f}", "filters": {"event": ["die"]}}
    deaths = engine.get("/events", **past).body.splitlines()
    assert len(deaths) == 2
    assert engine.post("/containers/ended/start").status == 204
    assert engine.post("/containers/ended/wait").json["StatusCode"] == 6
