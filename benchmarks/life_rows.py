"""What an engine with many containers answers, how soon, and what watching them costs it.

A scenario gets an engine and returns figures; it leaves no container. dockerd stands beside where that
says something; it takes minutes for what it takes hours for (1,000 running containers).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.goals import Figures, Row
from benchmarks.health_checks import cpu_s
from benchmarks.memory import pss_bytes
from benchmarks.subjects import Subject
from support.engines import IMAGE, Engine, SampanEngine
from support.http import Connection
from support.waiting import wait_for

CREATE = Row("`create` (API)", at_most=0.003)
INSPECT = Row("`inspect` (API)", at_most=0.001)
LIST = Row("list of 1,000 containers (API)", at_most=0.015)
PS_LATE = Row("list of running containers while 32 starts run, p99 (API)", at_most=0.050)
CHECKS = Row("100 health checks every 5 s, processor time of the daemon", "%", at_most=3.0)
STATS = Row("`stats` of 100 containers, processor time of the daemon", "%", at_most=5.0)
EVENT = Row("an event at its listener, from the request on", at_most=0.005)
REMOVE = Row("`rm -f` of 100 running containers (API, 8 at a time)", at_most=1.5)
STOP = Row("`stop` of a container whose PID 1 has no handler (API)", at_most=1.0)
START_THOUSAND = Row("1,000 containers: create+start of all, 8 at a time")
MEMORY_THOUSAND = Row("1,000 idle containers: the engine's memory (PSS)", "MiB")
START_LATE = Row("1,000 idle containers: create+start of one more")
LIST_THOUSAND = Row("1,000 idle containers: list")
IDLE_THOUSAND = Row("1,000 idle containers: processor time of the daemon", "%")
RESTART_THOUSAND = Row("1,000 idle containers: daemon killed, until the next one answers")

HUNDRED, THOUSAND, STARTS = 100, 1000, 32
_REPEATED = 50
_SPAN_S = 10.0


class NotMeasured(Exception):
    """This engine has no such thing, or would take hours."""


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def late(values: Sequence[float], share: float) -> float:
    """The value that this share of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def named(count: int) -> list[str]:
    token = secrets.token_hex(4)
    return [f"b{token}-{number}" for number in range(count)]


class Clients(threading.local):
    """A connection for each thread, as real clients have."""

    connection: Connection | None = None


def each(engine: Engine, names: Sequence[str], work: Callable[[Connection, str], None]) -> float:
    """Seconds that `work` takes for all names, eight at a time, each thread on one connection."""
    opened: list[Connection] = []
    clients = Clients()

    def one(name: str) -> None:
        if clients.connection is None:
            clients.connection = engine.connect(timeout_s=300)
            opened.append(clients.connection)
        work(clients.connection, name)

    try:
        with ThreadPoolExecutor(8) as pool:
            return seconds(lambda: list(pool.map(one, names)))
    finally:
        for connection in opened:
            connection.close()


def create(connection: Connection, name: str, network: str = "none") -> None:
    body = {"Image": IMAGE, "Cmd": ["sleep", "86400"], "HostConfig": {"NetworkMode": network}}
    answer = connection.request("POST", "/containers/create", query={"name": name}, body=body)
    assert answer.status == 201, answer


def start(connection: Connection, name: str) -> None:
    create(connection, name)
    answer = connection.request("POST", f"/containers/{name}/start")
    assert answer.status == 204, answer


def remove(connection: Connection, name: str) -> None:
    answer = connection.request("DELETE", f"/containers/{name}", query={"force": True})
    assert answer.status in (204, 404), answer


@contextlib.contextmanager
def containers(
    engine: Engine, count: int, work: Callable[[Connection, str], None]
) -> Iterator[list[str]]:
    """That many containers, gone again at the end."""
    names = named(count)
    try:
        each(engine, names, work)
        yield names
    finally:
        each(engine, names, remove)


def percent(engine: Engine, span_s: float = _SPAN_S) -> float:
    """The daemon's processor time over a span, of one core."""
    assert engine.process is not None
    begin, before = time.monotonic(), cpu_s(engine.process.pid)
    time.sleep(span_s)  # the span itself
    return 100 * (cpu_s(engine.process.pid) - before) / (time.monotonic() - begin)


def create_inspect(engine: Engine) -> Figures:
    names = named(_REPEATED)
    with engine.connect() as connection:
        try:
            created = [seconds(lambda name=name: create(connection, name)) for name in names]  # type: ignore[misc]
            path = f"/containers/{names[0]}/json"
            inspected = [seconds(lambda: connection.request("GET", path)) for _ in names]
        finally:
            for name in names:
                remove(connection, name)
    return {CREATE: middle(created), INSPECT: middle(inspected)}


def list_thousand(engine: Engine) -> Figures:
    with containers(engine, THOUSAND, create), engine.connect() as connection:
        times = []
        for _ in range(21):
            begin = time.perf_counter()
            answer = connection.request("GET", "/containers/json", query={"all": True})
            times.append(time.perf_counter() - begin)
            assert len(answer.json) >= THOUSAND
    return {LIST: middle(times)}


def ps_under_starts(engine: Engine) -> Figures:
    """One client lists without a pause while 32 others start a container each, four times."""
    times: list[float] = []
    done = threading.Event()

    def ask() -> None:
        with engine.connect() as connection:
            while not done.is_set():
                times.append(seconds(lambda: connection.request("GET", "/containers/json")))
                time.sleep(0.002)  # a person's client is not faster

    def one(name: str) -> None:
        with engine.connect() as connection:
            create(connection, name, "bridge")
            assert connection.request("POST", f"/containers/{name}/start").status == 204

    for _ in range(4):
        names = named(STARTS)
        asking = threading.Thread(target=ask)
        done.clear()
        asking.start()
        try:
            with ThreadPoolExecutor(STARTS) as pool:
                list(pool.map(one, names))
        finally:
            done.set()
            asking.join()
            each(engine, names, remove)
    return {PS_LATE: late(times, 0.99)}


def health_checks(engine: Engine) -> Figures:
    check = {"Test": ["CMD", "true"], "Interval": 5_000_000_000}

    def checked(connection: Connection, name: str) -> None:
        body = {"Image": IMAGE, "Cmd": ["sleep", "86400"], "Healthcheck": check,
                "HostConfig": {"NetworkMode": "none"}}  # fmt: skip
        assert connection.request(
            "POST", "/containers/create", query={"name": name}, body=body
        ).status == 201  # fmt: skip
        assert connection.request("POST", f"/containers/{name}/start").status == 204

    with containers(engine, HUNDRED, checked):

        def healthy() -> bool:
            found = engine.get("/containers/json", filters={"health": ["healthy"]}).json
            return len(found) == HUNDRED

        wait_for(healthy, "all to be healthy", timeout_s=120)
        return {CHECKS: percent(engine, 2 * _SPAN_S)}


def stats(engine: Engine) -> Figures:
    """`docker stats` of all: a stream for each container, a sample a second."""
    with containers(engine, HUNDRED, start) as names:
        streams = [engine.connect(timeout_s=120) for _ in names]
        done = threading.Event()

        def drain() -> None:
            while not done.wait(0.2):
                for stream in streams:
                    stream.poll()
                    stream.buffer = b""

        reading = threading.Thread(target=drain)
        try:
            for stream, name in zip(streams, names, strict=True):
                stream.start("GET", f"/containers/{name}/stats", query={"stream": True})
            reading.start()
            time.sleep(2)  # the first samples are made
            return {STATS: percent(engine)}
        finally:
            done.set()
            reading.join()
            for stream in streams:
                stream.close()


def event_delivery(engine: Engine) -> Figures:
    """From sending a rename until its event is with the listener."""
    times = []
    (name,) = named(1)
    with engine.connect() as connection, engine.connect() as listener:
        create(connection, name)
        identity = connection.request("GET", f"/containers/{name}/json").json["Id"]
        try:
            listener.start("GET", "/events", query={"filters": {"event": ["rename"]}})
            status, _, headers = listener.read_head()
            body = listener.body(status, headers)
            for number in range(_REPEATED):
                query = {"name": f"{name}-{number}"}
                begin = time.perf_counter()
                connection.start("POST", f"/containers/{identity}/rename", query=query)
                event = json.loads(next(body))
                times.append(time.perf_counter() - begin)
                assert event["Action"] == "rename"
                connection.finish(*connection.read_head())
        finally:
            remove(connection, identity)
    return {EVENT: middle(times)}


def remove_hundred(engine: Engine) -> Figures:
    names = named(HUNDRED)
    each(engine, names, start)
    return {REMOVE: each(engine, names, remove)}


def stop(engine: Engine) -> Figures:
    """`sleep` as PID 1 does not hear SIGTERM: the kernel keeps it from a first process without a handler."""
    with containers(engine, 3, start) as names, engine.connect() as connection:
        times = [
            seconds(lambda name=name: connection.request("POST", f"/containers/{name}/stop"))  # type: ignore[misc]
            for name in names
        ]
    return {STOP: middle(times)}


def thousand_idle(engine: Engine) -> Figures:
    if not isinstance(engine, SampanEngine):
        raise NotMeasured
    names = named(THOUSAND)
    figures: Figures = {}
    try:
        figures[START_THOUSAND] = each(engine, names, start)
        time.sleep(5)  # until it idles
        figures[MEMORY_THOUSAND] = pss_bytes(engine) / 2**20
        figures[IDLE_THOUSAND] = percent(engine)
        with engine.connect() as connection:
            more = named(9)
            figures[START_LATE] = middle(
                [seconds(lambda name=name: start(connection, name)) for name in more]  # type: ignore[misc]
            )
            for name in more:
                remove(connection, name)
            figures[LIST_THOUSAND] = middle(
                [seconds(lambda: connection.request("GET", "/containers/json")) for _ in range(9)]
            )
        engine.kill()
        figures[RESTART_THOUSAND] = seconds(engine.start)
    finally:
        each(engine, names, remove)
    return figures


Scenarios = Mapping[str, Callable[[Engine], Figures]]
SCENARIOS: dict[str, Callable[[Engine], Figures]] = {
    "life-create": create_inspect,
    "life-list": list_thousand,
    "life-ps": ps_under_starts,
    "life-events": event_delivery,
    "life-rm": remove_hundred,
    "life-stop": stop,
    "life-stats": stats,
    "life-health": health_checks,
    "life-thousand": thousand_idle,
}
# Long ones are measured once.
ONCE = frozenset({"life-list", "life-health", "life-stats", "life-thousand"})


def measure(
    subjects: Sequence[Subject],
    scenarios: Scenarios,
    rounds: int,
    progress: Callable[[str], None],
) -> dict[Row, dict[str, list[float]]]:
    """Every scenario in rounds, all engines in each."""
    figures: dict[Row, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, scenario in scenarios.items():
        for round_ in range(1 if name in ONCE else rounds):
            for subject in subjects if round_ % 2 else subjects[::-1]:
                if subject.engine is None:
                    continue
                progress(f"{name} {round_} {subject.name}")
                try:
                    found = scenario(subject.engine)
                except NotMeasured:
                    continue
                for row, value in found.items():
                    figures[row][subject.name].append(value)
    return figures
