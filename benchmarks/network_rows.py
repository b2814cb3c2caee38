"""What networks cost: their share of a run, making and joining one, 40 starts at once, policies and names.

What goes through them is `traffic_rows`.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from benchmarks.goals import Figures, Row
from benchmarks.life_rows import NotMeasured, late, middle, named, remove
from benchmarks.names import ask_steadily, cpu_s
from support.engines import IMAGE, Engine, SampanEngine
from support.http import Connection
from support.waiting import wait_for

BRIDGE = Row("what the bridge network adds to create+start+wait+delete (API)", share=1 / 8)
PORT = Row("what the bridge and one published port add to that (API)", share=1 / 6)
NETWORK = Row("`network create` + `rm` (API)", share=1 / 5)
CONNECT = Row("connect of a running container (API)", share=1 / 4)
ONE_LATE = Row("create+start on one network, alone")
FORTY_LATE = Row("40 at once on one network: p95 of create+start")
FORTY_NONE = Row("40 at once with network none: p95 of create+start")
# A queue at a lock of the network's would make the network's part grow with the number that start at once.
CONVOY = Row("40 at once: p95 on one network, as a multiple of that with none", "x", at_most=1.5)
TURNS = Row(
    "40 at once: p95 on one network, as a multiple of 40 one after another", "x", at_most=1.0
)
NETWORK_MADE = Row("`network create` (API)")
NETWORK_REMOVED = Row("`network rm` (API)")
POLICY = Row("what a network policy adds to create+start (API)")
POLICY_CHANGE = Row("change of the policy of a running container (API)", at_most=0.1)
ASKED = Row("a name asked for at 127.0.0.11, 2,000 a second: median")
ASKED_LATE = Row("a name asked for at 127.0.0.11, 2,000 a second: p99", at_most=0.002)
STOPPED_FILES = Row("files that the resolver holds for 20 stopped containers", "files", at_most=0)
STOPPED_TIME = Row("processor time of the resolver with those", "%", at_most=0.5)

_ROUNDS = 15
_TURNS, _IN_A_ROW = 3, 5
_SPAN_S = 2.0
_RATE = 2000.0


def _created(
    connection: Connection,
    network: str,
    published: bool,
    command: list[str],
    annotations: Mapping[str, str],
    container: str,
) -> str:
    body: dict[str, object] = {"Image": IMAGE, "Cmd": command}
    host: dict[str, object] = {"NetworkMode": network}
    if annotations:
        host["Annotations"] = dict(annotations)
    if published:
        body["ExposedPorts"] = {"80/tcp": {}}
        host["PortBindings"] = {"80/tcp": [{"HostPort": ""}]}
    query = {"name": container} if container else {}
    answer = connection.request(
        "POST", "/containers/create", query=query, body={**body, "HostConfig": host}
    )
    assert answer.status == 201, answer
    return str(answer.json["Id"])


def _run(
    connection: Connection,
    network: str,
    published: bool = False,
    command: Sequence[str] = ("sleep", "600"),
    annotations: Mapping[str, str] = MappingProxyType({}),
    container: str = "",
) -> str:
    identity = _created(connection, network, published, list(command), annotations, container)
    answer = connection.request("POST", f"/containers/{identity}/start")
    assert answer.status == 204, answer
    return identity


def shares(engine: Engine) -> Figures:
    """The difference of medians. What the kernel clears away behind a container disturbs the next: so each
    kind comes some times in a row, the first of which does not count."""
    kinds = {"none": ("none", False), "bridge": ("bridge", False), "port": ("bridge", True)}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with engine.connect() as connection:
        for _ in range(_TURNS):
            for kind, (network, published) in kinds.items():
                for number in range(1 + _IN_A_ROW):
                    begin = time.perf_counter()
                    identity = _run(connection, network, published, ["true"])
                    waited = connection.request("POST", f"/containers/{identity}/wait")
                    assert waited.json["StatusCode"] == 0, waited
                    remove(connection, identity)
                    if number:
                        times[kind].append(time.perf_counter() - begin)
    without, bridge, port = (statistics.median(times[kind]) for kind in kinds)
    return {BRIDGE: max(bridge - without, 1e-5), PORT: max(port - without, 1e-5)}


def network_life(engine: Engine) -> Figures:
    made, removed = [], []
    with engine.connect() as connection:
        for name in named(_ROUNDS):
            begin = time.perf_counter()
            answer = connection.request("POST", "/networks/create", body={"Name": name})
            made.append(time.perf_counter() - begin)
            assert answer.status == 201, answer
            begin = time.perf_counter()
            assert connection.request("DELETE", f"/networks/{name}").status == 204
            removed.append(time.perf_counter() - begin)
    whole = [one + other for one, other in zip(made, removed, strict=True)]
    return {
        NETWORK: middle(whole),
        NETWORK_MADE: middle(made),
        NETWORK_REMOVED: middle(removed),
    }


def connect(engine: Engine) -> Figures:
    (name,) = named(1)
    times = []
    with engine.connect() as connection:
        assert connection.request("POST", "/networks/create", body={"Name": name}).status == 201
        identity = _run(connection, "bridge")
        try:
            for _ in range(_ROUNDS):
                body = {"Container": identity}
                begin = time.perf_counter()
                joined = connection.request("POST", f"/networks/{name}/connect", body=body)
                times.append(time.perf_counter() - begin)
                assert joined.status == 200, joined
                left = connection.request("POST", f"/networks/{name}/disconnect", body=body)
                assert left.status == 200, left
        finally:
            remove(connection, identity)
            connection.request("DELETE", f"/networks/{name}")
    return {CONNECT: middle(times)}


def forty(engine: Engine) -> Figures:
    """p95 of 40 at once beside one alone, on a network of their own, and beside 40 with none."""
    (name,) = named(1)
    assert engine.post("/networks/create", {"Name": name}).status == 201
    try:
        _, without = _forty(engine, "none")
        alone, times = _forty(engine, name)
    finally:
        engine.delete(f"/networks/{name}")
    found = {ONE_LATE: alone, FORTY_LATE: times, FORTY_NONE: without}
    return {**found, CONVOY: times / without, TURNS: times / (40 * alone)}


def _forty(engine: Engine, network: str) -> tuple[float, float]:
    """(one alone, p95 of 40 at once) on that network."""
    made: list[str] = []

    def one(_: int) -> float:
        with engine.connect(timeout_s=120) as connection:
            begin = time.perf_counter()
            made.append(_run(connection, network))
            return time.perf_counter() - begin

    try:
        alone = middle([one(number) for number in range(9)])
        with ThreadPoolExecutor(40) as pool:
            times = list(pool.map(one, range(40)))
    finally:
        with engine.connect(timeout_s=120) as connection:
            for identity in made:
                remove(connection, identity)
    return alone, late(times, 0.95)


def policy(engine: Engine) -> Figures:
    """What a policy costs the start of a container, and a change of it while it runs."""
    if not isinstance(engine, SampanEngine):
        raise NotMeasured
    first, second = ({"sampan.network-policy": f"allow:10.{number}.0.0/16"} for number in (1, 2))
    times: dict[str, list[float]] = {"without": [], "with": [], "change": []}
    with engine.connect() as connection:
        for _ in range(_ROUNDS):
            for kind, annotations in (("without", {}), ("with", first)):
                begin = time.perf_counter()
                identity = _run(connection, "bridge", annotations=annotations)
                times[kind].append(time.perf_counter() - begin)
                if annotations:
                    begin = time.perf_counter()
                    path, body = f"/containers/{identity}/update", {"Annotations": second}
                    changed = connection.request("POST", path, body=body)
                    times["change"].append(time.perf_counter() - begin)
                    assert changed.status == 200, changed
                remove(connection, identity)
    share = middle(times["with"]) - middle(times["without"])
    return {POLICY: max(share, 1e-5), POLICY_CHANGE: middle(times["change"])}


def resolver(engine: Engine) -> Figures:
    """Names asked for at a steady rate; then what containers that have stopped leave with the resolver."""
    name, asked, asking, *stopped = named(23)
    ours = isinstance(engine, SampanEngine)
    with engine.connect(timeout_s=120) as connection:
        assert connection.request("POST", "/networks/create", body={"Name": name}).status == 201
        made = []
        try:
            for each in (asked, asking):
                made.append(_run(connection, name, container=each))
            pid = connection.request("GET", f"/containers/{asking}/json").json["State"]["Pid"]
            latencies = ask_steadily(pid, asked, _RATE, 3)
            assert not latencies.lost, latencies
            found = {ASKED: latencies.median / 1000, ASKED_LATE: latencies.p99 / 1000}
            if ours:
                [process] = engine.resolver_pids()  # type: ignore[attr-defined]
                before = _files(process)
                for each in stopped:
                    made.append(_run(connection, name, container=each))
                    connection.request("POST", f"/containers/{each}/kill")
                    connection.request("POST", f"/containers/{each}/wait")
                wait_for(lambda: _files(process) <= before, "the resolver to let go")
                found[STOPPED_FILES] = _files(process) - before
                begin = cpu_s(process)
                time.sleep(_SPAN_S)
                found[STOPPED_TIME] = (cpu_s(process) - begin) / _SPAN_S * 100
        finally:
            for identity in made:
                remove(connection, identity)
            connection.request("DELETE", f"/networks/{name}")
    return found


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


SCENARIOS: dict[str, Callable[[Engine], Figures]] = {
    "net-share": shares,
    "net-create": network_life,
    "net-connect": connect,
    "net-forty": forty,
    "net-policy": policy,
    "net-names": resolver,
}
