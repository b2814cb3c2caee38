"""What networks cost: their share of a start, making and joining one, and what goes through them.

dockerd stands beside in a network namespace of its own; a client of its published port or its bridge is run in there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.goals import Figures, Row
from benchmarks.life_rows import late, middle, named, remove, seconds
from support.engines import IMAGE, Engine
from support.http import Connection

BRIDGE = Row("what the bridge network adds to create+start (API)", share=1 / 8)
PORT = Row("what the bridge and one published port add to create+start (API)", share=1 / 6)
NETWORK = Row("`network create` + `rm` (API)", share=1 / 5)
CONNECT = Row("connect of a running container (API)", share=1 / 4)
ONE_LATE = Row("create+start on one network, alone")
FORTY_LATE = Row("40 at once on one network: p95 of create+start")
THROUGHPUT_PORT = Row("host → published port, one stream", "Gbit/s", at_least=0.95)
LATENCY_PORT = Row("a byte and back through a published port", share=1.05)

_ROUNDS = 15
_SPAN_S = 2.0
SERVER = ["sh", "-c", "while :; do nc -l -p 80 -e cat; done"]
SINK = ["sh", "-c", "while :; do nc -l -p 80 > /dev/null; done"]


def _created(connection: Connection, network: str, published: bool, command: list[str]) -> str:
    body: dict[str, object] = {"Image": IMAGE, "Cmd": command}
    host: dict[str, object] = {"NetworkMode": network}
    if published:
        body["ExposedPorts"] = {"80/tcp": {}}
        host["PortBindings"] = {"80/tcp": [{"HostPort": ""}]}
    answer = connection.request("POST", "/containers/create", body={**body, "HostConfig": host})
    assert answer.status == 201, answer
    return str(answer.json["Id"])


def _run(connection: Connection, network: str, published: bool = False, command: list[str] | None = None) -> str:  # fmt: skip
    identity = _created(connection, network, published, command or ["sleep", "600"])
    answer = connection.request("POST", f"/containers/{identity}/start")
    assert answer.status == 204, answer
    return identity


def shares(engine: Engine) -> Figures:
    """Each kind in turn, so that what disturbs the machine disturbs all; the difference of medians."""
    kinds = {"none": ("none", False), "bridge": ("bridge", False), "port": ("bridge", True)}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with engine.connect() as connection:
        for _ in range(_ROUNDS):
            for kind, (network, published) in kinds.items():
                begin = time.perf_counter()
                identity = _run(connection, network, published)
                times[kind].append(time.perf_counter() - begin)
                remove(connection, identity)
    without, bridge, port = (statistics.median(times[kind]) for kind in kinds)
    return {BRIDGE: max(bridge - without, 1e-5), PORT: max(port - without, 1e-5)}


def network_life(engine: Engine) -> Figures:
    def life(name: str) -> None:
        made = connection.request("POST", "/networks/create", body={"Name": name})
        assert made.status == 201, made
        assert connection.request("DELETE", f"/networks/{name}").status == 204

    with engine.connect() as connection:
        return {NETWORK: middle([seconds(lambda n=name: life(n)) for name in named(_ROUNDS)])}  # type: ignore[misc]


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
    """p95 of 40 at once beside one alone, on a network of their own."""
    (name,) = named(1)
    made: list[str] = []

    def one(_: int) -> float:
        with engine.connect(timeout_s=120) as connection:
            begin = time.perf_counter()
            made.append(_run(connection, name))
            return time.perf_counter() - begin

    assert engine.post("/networks/create", {"Name": name}).status == 201
    try:
        alone = middle([one(number) for number in range(9)])
        with ThreadPoolExecutor(40) as pool:
            times = list(pool.map(one, range(40)))
    finally:
        with engine.connect(timeout_s=120) as connection:
            for identity in made:
                remove(connection, identity)
        engine.delete(f"/networks/{name}")
    return {ONE_LATE: alone, FORTY_LATE: late(times, 0.95)}


# Run where the engine's host is: sends to an address for a while, or a byte and back.
_PEER = """
import json, socket, sys, time
host, port, span_s, what = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
deadline = time.monotonic() + 20
while True:
    try:
        sock = socket.create_connection((host, port), timeout=20); break
    except OSError:
        if time.monotonic() > deadline: raise
        time.sleep(0.02)
if what == "latency":
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(2000):
        begin = time.perf_counter(); sock.sendall(b"x"); sock.recv(1); times.append(time.perf_counter() - begin)
    print(json.dumps(sorted(times)[1000]))
else:
    data, sent, begin = b"x" * (1 << 18), 0, time.perf_counter()
    while time.perf_counter() - begin < span_s:
        sent += sock.send(data)
    print(json.dumps(sent * 8 / (time.perf_counter() - begin) / 1e9))
"""


def _peer(engine: Engine, host: str, port: int, what: str) -> float:
    """From the engine's own network namespace."""
    assert engine.process is not None
    argv = [
        "nsenter",
        f"--net=/proc/{engine.process.pid}/ns/net",
        sys.executable,
        "-I",
        "-c",
        _PEER,
    ]
    found = subprocess.run([*argv, host, str(port), str(_SPAN_S), what], check=True, capture_output=True)  # fmt: skip
    return float(json.loads(found.stdout))


def through(engine: Engine) -> Figures:
    """A published port, from the host."""
    figures: Figures = {}
    with engine.connect(timeout_s=120) as connection:
        for row, what, command in ((LATENCY_PORT, "latency", SERVER), (THROUGHPUT_PORT, "send", SINK)):  # fmt: skip
            identity = _run(connection, "bridge", True, command)
            settings = connection.request("GET", f"/containers/{identity}/json").json
            port = int(settings["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
            try:
                # By the bridge's own address: dockerd would have its proxy in between at 127.0.0.1.
                host = settings["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
                figures[row] = _peer(engine, host, port, what)
            finally:
                remove(connection, identity)
    return figures


SCENARIOS: dict[str, Callable[[Engine], Figures]] = {
    "net-share": shares,
    "net-create": network_life,
    "net-connect": connect,
    "net-forty": forty,
    "net-through": through,
}
