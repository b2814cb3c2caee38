"""`kill -9` of the daemon, again and again, while clients create, start, end and remove containers.

A client of a published port is never cut off. What a client was told holds for ever after: no container, exit code, line of a log or event is lost, none
comes twice, and what nobody removed is there.

`--kills N` says how often (a release gets 100); `--seed N` repeats the choices, not the moments.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.engines import IMAGE, SampanEngine
from support.http import Connection, demultiplex
from support.waiting import wait_for

WORKERS = 3
LONGEST_S = 0.4  # of a daemon's life after it answers
# One that writes while no daemon is there; read to its last line at the end.
COUNTING = "i=0; while ! test -e /shared/stop; do echo $i; i=$((i+1)); usleep 3000; done; exit 9"
# A daemon that dies breaks off what it was asked, at whatever place.
BROKEN = (OSError, ValueError, http.client.HTTPException)


@dataclass
class Told:
    """What the clients heard, by the container's ID."""

    created: dict[str, tuple[int, int]] = field(default_factory=dict)  # exit code, lines
    started: set[str] = field(default_factory=set)
    # Asked for and perhaps done, whatever the answer was.
    removing: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    waited: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Client(threading.Thread):
    """One client after the other: a container that ends by itself, sometimes removed."""

    def __init__(self, engine: SampanEngine, told: Told, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.engine, self.told, self.stop = engine, told, stop
        self.chance = random.Random(seed)

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self.one_life()
            except BROKEN:
                time.sleep(0.01)  # until there is a daemon again

    def one_life(self) -> None:
        code, lines = self.chance.randrange(1, 100), self.chance.randrange(1, 40)
        script = f"i=0; while test $i -lt {lines}; do echo $i; i=$((i+1)); done; exit {code}"
        body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": self.chance.choice(("none", "bridge"))}}  # fmt: skip
        made = self.engine.post("/containers/create", body)
        assert made.status == 201, made
        identity = made.json["Id"]
        self.told.created[identity] = code, lines
        answer = self.engine.post(f"/containers/{identity}/start")
        if answer.status == 204:
            self.told.started.add(identity)
        elif answer.status != 304:
            self.told.wrong.append(f"start: {answer}")
            return
        if self.chance.random() < 0.5:
            waited = self.engine.post(f"/containers/{identity}/wait")
            self.told.waited[identity] = waited.json["StatusCode"]
        if self.chance.random() < 0.4:
            self.told.removing.add(identity)
            answer = self.engine.delete(f"/containers/{identity}", force=True)
            if answer.status == 204:
                self.told.removed.add(identity)


class Listener(threading.Thread):
    """Every event once, over all daemons, by their IDs."""

    def __init__(self, engine: SampanEngine, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.engine, self.stop = engine, stop
        self.seen: list[dict[str, Any]] = []
        self._connection: Connection | None = None

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                with self.engine.connect(timeout_s=600) as connection:
                    self._connection = connection
                    self._listen(connection)
            except BROKEN:
                time.sleep(0.01)

    def _listen(self, connection: Connection) -> None:
        cursor = self.seen[-1]["Cursor"] if self.seen else "e0"
        connection.start("GET", "/events", query={"since": cursor})
        status, _, headers = connection.read_head()
        assert status == 200, (cursor, status)
        text = b""
        for chunk in connection.body(status, headers):
            *lines, text = (text + chunk).split(b"\n")
            self.seen.extend(map(json.loads, lines))

    def actions(self, action: str) -> list[str]:
        """The containers of which this was told, each as often as it was."""
        return [e["Actor"]["ID"] for e in list(self.seen) if e["Type"] == "container" and e["Action"] == action]  # fmt: skip


class Stream(threading.Thread):
    """A client of a published port: what it sends comes back, on one connection for all the time."""

    def __init__(self, engine: SampanEngine, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.stop = stop
        self.echoed, self.failure = 0, ""
        body = {"Image": IMAGE, "Cmd": ["nc", "-l", "-p", "80", "-e", "cat"], "ExposedPorts": {"80/tcp": {}},
                "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": ""}]}}}  # fmt: skip
        self.identity = str(engine.post("/containers/create", body, name="published").json["Id"])
        assert engine.post(f"/containers/{self.identity}/start").status == 204
        settings = engine.get(f"/containers/{self.identity}/json").json["NetworkSettings"]
        port = int(settings["Ports"]["80/tcp"][0]["HostPort"])
        connected = wait_for(lambda: self._connected(port), "the server", timeout_s=30)
        assert connected is not None
        self.sock = connected

    def _connected(self, port: int) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            return None  # it does not listen yet

    def run(self) -> None:
        with self.sock:
            try:
                while not self.stop.is_set():
                    message = b"message %d\n" % self.echoed
                    self.sock.sendall(message)
                    found = b""
                    while len(found) < len(message) and (more := self.sock.recv(100)):
                        found += more
                    assert found == message, (message, found)
                    self.echoed += 1
                    self.stop.wait(0.002)
            except (OSError, AssertionError) as error:
                self.failure = repr(error)


def counting(engine: SampanEngine) -> str:
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", COUNTING], "HostConfig": {"Binds": [f"{engine.directory}:/shared"]}}  # fmt: skip
    identity = str(engine.post("/containers/create", body, name="counting").json["Id"])
    assert engine.post(f"/containers/{identity}/start").status == 204
    return identity


def expect_log(engine: SampanEngine, identity: str, lines: int | None) -> None:
    """Every line once, in order."""
    answer = engine.get(f"/containers/{identity}/logs", stdout=True)
    found = demultiplex(answer.body)[0].split()
    assert found == [b"%d" % number for number in range(len(found))], identity
    assert lines is None or len(found) == lines, (identity, len(found), lines)


def expect_ended(engine: SampanEngine, told: Told) -> dict[str, dict[str, Any]]:
    """Wait for the last ends; every container that was started has its exit code and its lines."""

    def states() -> dict[str, str]:
        return {c["Id"]: c["State"] for c in engine.get("/containers/json", all=True).json}

    wait_for(lambda: "running" not in states().values(), "all containers to end", timeout_s=60)
    present = states()
    for identity, (code, lines) in told.created.items():
        if identity in told.removing:
            assert identity not in told.removed or identity not in present, identity
            continue
        assert identity in present, f"container {identity} is lost"
        if present[identity] == "created":
            assert identity not in told.started, identity
            continue
        state = engine.get(f"/containers/{identity}/json").json["State"]
        assert state["ExitCode"] == code, (identity, code, state)
        expect_log(engine, identity, lines)
    for identity, code in told.waited.items():
        assert code == told.created[identity][0], (identity, code)
    return {}


def expect_told(listener: Listener, told: Told) -> None:
    """Every answered change is an event, and none is there twice."""
    numbers = [int(event["Cursor"][1:]) for event in listener.seen]
    assert numbers == list(range(1, len(numbers) + 1))
    starts, deaths = listener.actions("start"), listener.actions("die")
    assert set(told.created) <= set(listener.actions("create"))
    assert told.started <= set(starts)
    assert told.started - told.removing <= set(deaths)
    assert told.removed <= set(listener.actions("destroy"))
    assert len(starts) == len(set(starts)), "a start was told twice"
    assert len(deaths) == len(set(deaths)), "an end was told twice"


@pytest.mark.timeout(3600)
def test_nothing_told_is_lost(own_sampan: SampanEngine, pytestconfig: pytest.Config) -> None:
    engine, told, stop = own_sampan, Told(), threading.Event()
    chance = random.Random(pytestconfig.getoption("--seed"))
    written = counting(engine)
    stream = Stream(engine, stop)
    listener = Listener(engine, stop)
    clients = [Client(engine, told, chance.randrange(2**32), stop) for _ in range(WORKERS)]
    for thread in (stream, listener, *clients):
        thread.start()
    try:
        for _ in range(pytestconfig.getoption("--kills")):
            time.sleep(chance.random() * LONGEST_S)  # the random moment itself
            engine.kill()
            engine.start()
    finally:
        stop.set()
        for thread in (stream, *clients):
            thread.join()
        with contextlib.suppress(OSError):
            # A listener hears of it by one more event.
            engine.post("/containers/create", {"Image": IMAGE}, name="last")
        with open(f"{engine.directory}/stop", "w"):
            pass
    try:
        assert not told.wrong, told.wrong
        assert not stream.failure, (stream.echoed, stream.failure)
        assert stream.echoed > pytestconfig.getoption("--kills")
        assert engine.post(f"/containers/{stream.identity}/wait").json["StatusCode"] == 0
        assert engine.post(f"/containers/{written}/wait").json["StatusCode"] == 9
        expect_log(engine, written, None)
        expect_ended(engine, told)
        wait_for(lambda: written in listener.actions("die"), "the last event", timeout_s=30)
        expect_told(listener, told)
        trace = engine.log().partition("Traceback")[2]
        assert not trace, trace[:4000]
    finally:
        engine.remove_containers()
        engine.terminate()
        listener.join(timeout=30)
