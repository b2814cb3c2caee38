"""What goes through networks: throughput and latency between containers, with the host, through a published port.

All engines and a bare veth pair are there at once and take turns every half second, so that a machine that is
busy for a while is so for all of them. Each engine has a network namespace of its own: rules that others have on
the machine are not on its way. From outside a packet goes over two cables and is routed between them, so does
that of the bare pair for that path.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.goals import Row
from benchmarks.life_rows import remove
from benchmarks.traffic import Way, round_trip, throughput
from support.engines import IMAGE, DockerEngine, Engine, SampanEngine, namespaced
from support.netns import NetworkNamespace

BARE = "veth"  # the column of the pair without an engine
_PORT = 80
Figures = dict[Row, dict[str, list[float]]]
Measured = dict[str, dict[str, tuple[list[float], ...]]]
"""Path → engine → what each round found, in the order of `_rows`."""

PATHS = {
    "container": "container → container",
    "host": "container → host",
    "local": "host → published port",
    "outside": "outside → published port",
}


def _rows(least: float, most: float) -> dict[str, tuple[Row, ...]]:
    """Of each path: one stream, a byte and back on two processors, and on one."""
    return {
        path: (
            Row(f"{words}, one stream", "Gbit/s", at_least=least),
            Row(f"{words}, a byte and back", "µs", share=most),
            Row(f"{words}, the same on one processor", "µs", share=most),
        )
        for path, words in PATHS.items()
    }


def _figures(way: Way) -> tuple[float, ...]:
    """In the order of `_rows`."""
    return (
        throughput(way),
        round_trip(way, together=False) * 1e6,
        round_trip(way, together=True) * 1e6,
    )


BESIDE_DOCKERD = _rows(0.95, 1.05)
BESIDE_PAIR = _rows(0.90, 1.10)


class SecludedEngine(SampanEngine):
    """Ours in network and mount namespaces of its own, as dockerd stands beside."""

    def argv(self) -> list[str]:
        return namespaced(super().argv())


KINDS: dict[str, type[Engine]] = {"sampan": SecludedEngine, "dockerd": DockerEngine}


def measure(
    names: Sequence[str],
    rounds: int,
    directory: str,
    progress: Callable[[str], None],
) -> tuple[Figures, Figures]:
    """(beside dockerd, beside a bare pair): row → engine → what its rounds found."""
    found: Measured = defaultdict(lambda: defaultdict(lambda: ([], [], [])))
    with ExitStack() as stack:
        ways: dict[str, dict[str, Way]] = {BARE: stack.enter_context(_bare())}
        for name in names:
            engine = KINDS[name](f"{directory}/{name}", f"{secrets.token_hex(4)}")
            stack.callback(engine.stop)
            engine.start()
            engine.import_busybox()
            ways[name] = stack.enter_context(_ways(engine))
        for round_ in range(1 + rounds):
            for path in PATHS:
                for name in list(ways) if round_ % 2 else list(ways)[::-1]:
                    progress(f"traffic {round_} {path} {name}")
                    figures = _figures(ways[name][path])
                    if round_:  # the first one fills the neighbours' tables
                        for values, figure in zip(found[path][name], figures, strict=True):
                            values.append(figure)
    return _table(found, BESIDE_DOCKERD, bare=False), _table(found, BESIDE_PAIR, bare=True)


def _table(
    found: Measured,
    rows: dict[str, tuple[Row, ...]],
    *,
    bare: bool,
) -> Figures:
    return {
        row: {name: measured[kind] for name, measured in by_name.items() if bare or name != BARE}
        for path, by_name in found.items()
        for kind, row in enumerate(rows[path])
    }


@contextmanager
def _bare() -> Iterator[dict[str, Way]]:
    """Namespaces and veth pairs between them, nothing else: one pair, or two and a router."""
    with ExitStack() as stack:
        outside, router, end = spaces = [NetworkNamespace() for _ in range(3)]
        for space in spaces:
            stack.callback(space.close)
        _cable(_path(outside), _path(router), "198.18.250")
        _cable(_path(router), _path(end), "198.18.251")
        _in(_path(router), "echo 1 > /proc/sys/net/ipv4/ip_forward")
        _in(_path(outside), "ip route add default via 198.18.250.2")
        _in(_path(end), "ip route add default via 198.18.251.1")
        way = Way(_path(router), _path(end), _PORT, ("198.18.251.2", _PORT))
        routed = Way(_path(outside), _path(end), _PORT, ("198.18.251.2", _PORT))
        yield {**dict.fromkeys(PATHS, way), "outside": routed}


@contextmanager
def _ways(engine: Engine) -> Iterator[dict[str, Way]]:
    """Two containers on one network, one of them with a published port, and somebody outside."""
    assert engine.process is not None
    host = f"/proc/{engine.process.pid}/ns/net"
    outside = NetworkNamespace()
    subnet = f"198.18.{secrets.randbelow(250)}"
    made: list[str] = []
    network = f"traffic{secrets.token_hex(3)}"
    with engine.connect(timeout_s=120) as connection:
        try:
            answer = connection.request("POST", "/networks/create", body={"Name": network})
            assert answer.status == 201, answer
            for _ in range(2):
                body = {
                    "Image": IMAGE,
                    "Cmd": ["sleep", "100000"],
                    "ExposedPorts": {f"{_PORT}/tcp": {}},
                    "HostConfig": {"NetworkMode": network, "PortBindings": {f"{_PORT}/tcp": [{"HostPort": ""}]}},
                }  # fmt: skip
                answer = connection.request("POST", "/containers/create", body=body)
                assert answer.status == 201, answer
                made.append(answer.json["Id"])
                answer = connection.request("POST", f"/containers/{made[-1]}/start")
                assert answer.status == 204, answer
            one, other = (connection.request("GET", f"/containers/{id_}/json").json for id_ in made)
            client, server = (f"/proc/{each['State']['Pid']}/ns/net" for each in (one, other))
            place = other["NetworkSettings"]["Networks"][network]
            address, gateway = place["IPAddress"], place["Gateway"]
            port = int(other["NetworkSettings"]["Ports"][f"{_PORT}/tcp"][0]["HostPort"])
            _cable(_path(outside), host, subnet)
            yield {
                "container": Way(client, server, _PORT, (address, _PORT)),
                "host": Way(client, host, 47_301, (gateway, 47_301)),
                # By the bridge's own address: dockerd would have its proxy in between at 127.0.0.1.
                "local": Way(host, server, _PORT, (gateway, port)),
                "outside": Way(_path(outside), server, _PORT, (f"{subnet}.2", port)),
            }
        finally:
            outside.close()  # and with it the cable
            for identity in made:
                remove(connection, identity)
            connection.request("DELETE", f"/networks/{network}")


def _path(namespace: NetworkNamespace) -> str:
    return f"/proc/{os.getpid()}/fd/{namespace.fd}"


def _cable(near: str, far: str, subnet: str) -> None:
    """A veth pair between two namespaces, with the addresses .1 and .2 of the subnet."""
    name = f"bt{secrets.token_hex(4)}"
    script = f"""
        ip link add {name} type veth peer name {name}f
        ip link set {name}f netns /proc/self/fd/FD
        ip address add {subnet}.1/24 dev {name}
        ip link set {name} up
    """
    fd = os.open(far, os.O_RDONLY)
    try:
        _in(near, script.replace("FD", str(fd)), fd)
    finally:
        os.close(fd)
    _in(far, f"ip address add {subnet}.2/24 dev {name}f\nip link set {name}f up\n")


def _in(namespace: str, script: str, *fds: int) -> None:
    argv = ["nsenter", f"--net={namespace}", "sh", "-ec", script]
    subprocess.run(argv, check=True, capture_output=True, pass_fds=fds)
