"""The engine's processes at the edge of their cgroup's pids.max: a start or an exec that finds no room for its
processes says so and leaves nothing, what runs goes on, and with room again the same request succeeds."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from support.engines import IMAGE, SampanEngine, children, running
from support.http import Answer
from support.waiting import wait_for

ROOMS = [*range(8), 10, 14, 20]
"""How many tasks may be made: from "not one" to "nearly enough" and "enough"."""
NO_ROOM = "resource temporarily unavailable"


class ProcessLimit:
    """A cgroup of the engine's own processes, of which containers' processes are no part."""

    def __init__(self, token: str) -> None:
        hierarchy = "/sys/fs/cgroup/pids"
        if not os.path.isdir(hierarchy):
            hierarchy = "/sys/fs/cgroup"
            with open(f"{hierarchy}/cgroup.subtree_control", "w") as control:
                control.write("+pids")
        self._parent, self.path = hierarchy, f"{hierarchy}/limit-{token}"
        os.mkdir(self.path)

    def hold(self, engine: SampanEngine) -> None:
        """Take in the daemon and what it has forked; with what those fork meanwhile at the second time."""
        assert engine.process is not None
        for _ in range(2):
            waiting = [engine.process.pid]
            for pid in waiting:
                with contextlib.suppress(OSError):
                    waiting += children(pid)
                    self._move(pid)

    def leave(self, room: int) -> None:
        """Let it have so many tasks more than now."""
        with open(f"{self.path}/pids.current") as file:
            current = int(file.read())
        self._set(str(current + room))

    def lift(self) -> None:
        self._set("max")

    def _set(self, value: str) -> None:
        with open(f"{self.path}/pids.max", "w") as file:
            file.write(value)

    def _move(self, pid: int, path: str = "") -> None:
        with open(f"{path or self.path}/cgroup.procs", "w") as file:
            file.write(str(pid))

    def remove(self) -> None:
        def removed() -> bool:
            with open(f"{self.path}/cgroup.procs") as file:
                for pid in file.read().split():
                    with contextlib.suppress(OSError):
                        self._move(int(pid), self._parent)
            try:
                os.rmdir(self.path)
            except OSError:
                return False
            return True

        wait_for(removed, "the cgroup to be empty")


@pytest.fixture
def engine(session_directory: str, session_token: str) -> Iterator[SampanEngine]:
    """An engine of the test's own: its resolver is no other test's."""
    token = session_token + "l"
    yield from running(SampanEngine(f"{session_directory}/{token}", token))


@pytest.fixture
def limit(engine: SampanEngine, session_token: str) -> Iterator[ProcessLimit]:
    made = ProcessLimit(session_token)
    made.hold(engine)
    yield made
    made.lift()
    made.remove()


def create(engine: SampanEngine, name: str, *command: str, network: str = "none") -> None:
    body = {"Image": IMAGE, "Cmd": [*command], "HostConfig": {"NetworkMode": network}}
    assert engine.post("/containers/create", body, name=name).status == 201


def expect_reason(answer: Answer) -> None:
    assert answer.status == 500, answer
    assert NO_ROOM in answer.message.lower(), answer
    assert "Traceback" not in answer.message


def lines_of(engine: SampanEngine, name: str) -> int:
    return engine.get(f"/containers/{name}/logs", stdout=1).body.count(b"tick")


def goes_on(engine: SampanEngine, name: str) -> None:
    before = lines_of(engine, name)
    wait_for(lambda: lines_of(engine, name) > before, "another line of the running container")


def exec_in(engine: SampanEngine, name: str) -> tuple[Answer, str]:
    body = {"Cmd": ["echo", "hello"], "AttachStdout": True}
    identity = engine.post(f"/containers/{name}/exec", body).json["Id"]
    return engine.post(f"/exec/{identity}/start", {}), identity


def expect_executed(engine: SampanEngine, answer: Answer, identity: str) -> None:
    """It ran, or it is said why not: instead of the stream, or in it, as dockerd says it."""
    wait_for(
        lambda: not engine.get(f"/exec/{identity}/json").json["Running"],
        "the exec to end",
    )
    if answer.status != 200:
        expect_reason(answer)
    elif b"hello" not in answer.body:
        document = engine.get(f"/exec/{identity}/json").json
        assert NO_ROOM in answer.body.decode().lower(), (answer, document["ExitCode"])
        assert engine.get(f"/exec/{identity}/json").json["ExitCode"] not in (0, None)


@pytest.mark.parametrize("network", ["none", "bridge", "own"])
def test_starts_and_execs(engine: SampanEngine, limit: ProcessLimit, network: str) -> None:
    if network == "own":
        assert engine.post("/networks/create", {"Name": "own"}).status == 201
    create(engine, "witness", "sh", "-c", "while sleep 0.05; do echo tick; done")
    assert engine.post("/containers/witness/start").status == 204
    held = engine.remains()
    refused = started = 0
    for room in ROOMS:
        create(engine, "next", "sleep", "600", network=network)
        limit.leave(room)
        answer = engine.post("/containers/next/start")
        executed, identity = exec_in(engine, "witness")
        goes_on(engine, "witness")
        limit.lift()
        if answer.status == 204:
            started += 1
            assert engine.get("/containers/next/json").json["State"]["Running"]
        else:
            refused += 1
            expect_reason(answer)
            state = engine.get("/containers/next/json").json["State"]
            assert (state["Status"], state["Pid"]) == ("created", 0)
            assert NO_ROOM in state["Error"].lower(), (room, answer, state)
            remains = engine.remains()
            for kind in ("mounts", "cgroups", "interfaces", "shims"):
                assert len(remains[kind]) == len(held[kind]), (kind, room, remains[kind])
            assert engine.post("/containers/next/start").status == 204
        expect_executed(engine, executed, identity)
        again, _ = exec_in(engine, "witness")
        assert again.status == 200 and b"hello" in again.body
        assert engine.delete("/containers/next", force=1).status == 204
        limit.hold(engine)
    assert refused and started
    goes_on(engine, "witness")


def test_the_cli_is_told(engine: SampanEngine, limit: ProcessLimit) -> None:
    """One line, exit code 125; and the engine takes requests while no thread can be made."""
    limit.leave(0)
    sampan = os.path.join(os.path.dirname(engine.argv()[0]), "sampan")
    done = subprocess.run(
        [sampan, "-H", f"unix://{engine.socket}", "run", "--network", "none", IMAGE, "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 125, done
    assert NO_ROOM in done.stderr.lower()
    assert "Traceback" not in done.stderr
    listed = engine.get("/containers/json", all=1)
    assert listed.status == 200 and len(listed.json) == 1
    limit.lift()
    assert engine.post(f"/containers/{listed.json[0]['Id']}/start").status == 204
