"""What is measured: one function a row of the table, each returning named figures.

A figure is (row, value); seconds unless the row says otherwise. Rows are measured in rounds, all engines
in every round, so that what disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.memory import pss_bytes
from benchmarks.subjects import LINES, LINES_IMAGE, PodmanSubject, Subject
from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.http import demultiplex

Figures = dict[str, float]

RUN_NONE = "`docker run --rm --network none IMG true`"
RUN_BRIDGE = "`docker run --rm IMG true` (bridge)"
EXEC = "`docker exec C true`"
API = "API create+start+wait+delete, no network"
MANY_RUN = "40 x `docker run -d`, 8 at a time"
MANY_RM = "`docker rm -f` of all 40"
LOG_WRITE = "200,000 lines of 100 bytes to the log, until `wait` returns"
LOG_READ = "`docker logs` of those"
# Our engine is ready for more for some seconds after a start, which takes memory; then it idles.
UNTIL_IDLE_S = 4.0
PER_CONTAINER = "engine memory for each idle container (MiB, PSS, of 20)"
IDLE = "idle engine (MiB, PSS)"
USED = "engine after all of the above (MiB, PSS)"


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _api(subject: Subject) -> Engine:
    engine = subject.engine
    if engine is None:
        raise NotMeasured
    return engine


class NotMeasured(Exception):
    """The engine has no such way in (Podman has no API here)."""


def run_none(subject: Subject) -> Figures:
    if isinstance(subject, PodmanSubject):
        return {
            RUN_NONE: _seconds(
                lambda: subject.command(
                    "run", "--rm", "--network", "none", *subject.LIMITS, IMAGE, "true"
                )
            )
        }
    docker = subject.docker()
    return {RUN_NONE: _seconds(lambda: docker("run", "--rm", "--network", "none", IMAGE, "true"))}


def run_bridge(subject: Subject) -> Figures:
    if isinstance(subject, PodmanSubject):
        return {
            RUN_BRIDGE: _seconds(
                lambda: subject.command(
                    "run", "--rm", "--network", "podman", *subject.LIMITS, IMAGE, "true"
                )
            )
        }
    docker = subject.docker()
    return {RUN_BRIDGE: _seconds(lambda: docker("run", "--rm", IMAGE, "true"))}


def exec_(subject: Subject) -> Figures:
    _api(subject)
    docker = subject.docker()
    name = docker("run", "-d", "--network", "none", IMAGE, "sleep", "600").line
    try:
        return {EXEC: min_of(3, lambda: docker("exec", name, "true"))}
    finally:
        docker("rm", "-f", name)


def min_of(count: int, action: Callable[[], object]) -> float:
    """The middle of a few measurements within one round."""
    return sorted(_seconds(action) for _ in range(count))[count // 2]


def api_life(subject: Subject) -> Figures:
    engine = _api(subject)
    with engine.connect() as connection:

        def life() -> None:
            body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
            identity = connection.request("POST", "/containers/create", body=body).json["Id"]
            assert connection.request("POST", f"/containers/{identity}/start").status == 204
            assert (
                connection.request("POST", f"/containers/{identity}/wait").json["StatusCode"] == 0
            )
            assert connection.request("DELETE", f"/containers/{identity}").status == 204

        return {API: min_of(3, life)}


def many(subject: Subject) -> Figures:
    _api(subject)
    docker = subject.docker()
    with ThreadPoolExecutor(8) as pool:
        begin = time.perf_counter()
        names = list(pool.map(lambda _: docker("run", "-d", IMAGE, "sleep", "600").line, range(40)))
        started = time.perf_counter()
    removed = _seconds(lambda: docker("rm", "-f", *names))
    return {MANY_RUN: started - begin, MANY_RM: removed}


def logs(subject: Subject) -> Figures:
    engine = _api(subject)
    docker = subject.docker()
    body = {"Image": LINES_IMAGE, "HostConfig": {"NetworkMode": "none"}}
    identity = engine.post("/containers/create", body).json["Id"]
    begin = time.perf_counter()
    assert engine.post(f"/containers/{identity}/start").status == 204
    assert engine.post(f"/containers/{identity}/wait").json["StatusCode"] == 0
    written = time.perf_counter() - begin
    begin = time.perf_counter()
    out = docker("logs", identity).out
    read = time.perf_counter() - begin
    assert out.count("\n") == LINES, f"{out.count(chr(10))} of {LINES} lines in the log"
    stdout, _ = demultiplex(engine.get(f"/containers/{identity}/logs", stdout=1).body)
    assert stdout == out.encode()
    assert engine.delete(f"/containers/{identity}").status == 204
    return {LOG_WRITE: written, LOG_READ: read}


def memory(subject: Subject) -> Figures:
    """After at least one start, so that what is loaded on first use is loaded."""
    engine = _api(subject)
    docker = subject.docker()
    docker("run", "--rm", IMAGE, "true")
    time.sleep(UNTIL_IDLE_S)
    idle = pss_bytes(engine)
    names = [docker("run", "-d", IMAGE, "sleep", "600").line for _ in range(20)]
    time.sleep(UNTIL_IDLE_S)
    full = pss_bytes(engine)
    docker("rm", "-f", *names)
    return {IDLE: idle / 2**20, PER_CONTAINER: (full - idle) / 20 / 2**20}


def used(subject: Subject) -> Figures:
    """What the engine has grown to when all containers are gone again."""
    time.sleep(UNTIL_IDLE_S)
    return {USED: pss_bytes(_api(subject)) / 2**20}


ROWS: dict[str, Callable[[Subject], Figures]] = {
    "memory": memory,
    "run-none": run_none,
    "run-bridge": run_bridge,
    "exec": exec_,
    "api": api_life,
    "many": many,
    "logs": logs,
    "used": used,
}


# -- starts at once --------------------------------------------------------------------------------


def at_once(engine: Engine, count: int) -> list[float]:
    """Seconds that each of `count` create+start took, all begun together, with the bridge network."""
    names = [f"b{secrets.token_hex(4)}" for _ in range(count)]

    def start(name: str) -> float:
        begin = time.perf_counter()
        with engine.connect() as connection:
            body = {"Image": IMAGE, "Cmd": ["sleep", "600"]}
            assert (
                connection.request(
                    "POST", "/containers/create", query={"name": name}, body=body
                ).status
                == 201
            )
            assert connection.request("POST", f"/containers/{name}/start").status == 204
        return time.perf_counter() - begin

    with ThreadPoolExecutor(count) as pool:
        times = list(pool.map(start, names))
        list(pool.map(lambda name: engine.delete(f"/containers/{name}", force=1), names))
    return times


# -- our command line beside docker's, on our engine -----------------------------------------------


def command_lines(
    engine: Engine, sampan: DockerCLI, docker: DockerCLI, rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
    """(sampan's, docker's) seconds for `run --rm` and `ps`, interleaved, with 5 containers there."""
    names = [docker("run", "-d", IMAGE, "sleep", "600").line for _ in range(5)]
    commands = {
        "run --rm --network none IMG true": ("run", "--rm", "--network", "none", IMAGE, "true"),
        "ps": ("ps",),
    }
    figures: dict[str, tuple[list[float], list[float]]] = {}
    for label, arguments in commands.items():
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(rounds):
            ours.append(_seconds(lambda arguments=arguments: sampan(*arguments)))  # type: ignore[misc]
            theirs.append(_seconds(lambda arguments=arguments: docker(*arguments)))  # type: ignore[misc]
        figures[label] = (ours, theirs)
    docker("rm", "-f", *names)
    return figures


def traces(engine: Engine, count: int) -> list[list[tuple[str, int]]]:
    """The stages (name, µs) of that many starts, one after another, with the bridge network.

    From the daemon's log, where `--trace-start` puts them.
    """
    seen = len(engine.log())
    for _ in range(count):
        at_once(engine, 1)
    found = []
    for line in engine.log()[seen:].splitlines():
        if "start trace " not in line:
            continue
        message = json.loads(line.partition(" msg=")[2])
        stages = json.loads(message.removeprefix("start trace "))["stages"]
        found.append([(str(stage), int(us)) for stage, us in stages])
    return found
