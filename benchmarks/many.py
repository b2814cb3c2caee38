"""No ceilings: thousands of networks on one engine, and containers on one network that reach each other.

    python -m benchmarks.many --networks 2000
    python -m benchmarks.many --containers 1500

Not one of the goals' rows: it takes minutes and gigabytes. The engine runs in a network namespace of its
own, so that nothing of it is left.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
)

from benchmarks.memory import pss_bytes
from sampan.linux import interfaces
from sampan.linux.netlink import delete_link
from support.engines import IMAGE, SampanEngine
from support.http import Connection
from support.world import World

AT_ONCE = 4
PAIRS = 300  # of containers, that are asked whether they reach each other


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--networks", type=int, default=0)
    parser.add_argument("--containers", type=int, default=0)
    options = parser.parse_args(arguments)
    world = World()
    token = secrets.token_hex(3)
    try:
        with world.host.entered(), tempfile.TemporaryDirectory(prefix="sampan-many-") as directory:
            engine = SampanEngine(os.path.join(directory, "engine"), token)
            try:
                engine.start()
                engine.import_busybox()
                if options.networks:
                    networks(engine, options.networks)
                if options.containers:
                    containers(engine, options.containers)
            finally:
                engine.stop()
    finally:
        world.close()


def networks(engine: SampanEngine, count: int) -> None:
    """Make, restart, use the first and the last, remove."""
    print(f"idle engine: {_memory(engine)} MiB")
    with engine.connect(timeout_s=600) as connection:
        times = []
        for number in range(count):
            began = time.perf_counter()
            answer = connection.request("POST", "/networks/create", body={"Name": f"n{number}"})
            assert answer.status == 201, answer
            times.append(time.perf_counter() - began)
        _tell("network create", times)
        began = time.perf_counter()
        listed = connection.request("GET", "/networks").json
        print(f"list of {len(listed)}: {_ms(time.perf_counter() - began)}")
        subnets = {each["IPAM"]["Config"][0]["Subnet"] for each in listed if each["IPAM"]["Config"]}
        assert len(subnets) == count + 1, len(subnets)
    print(f"engine with {count} networks: {_memory(engine)} MiB")
    for name in ("n0", f"n{count - 1}"):
        _run(engine, name)
    engine.terminate()
    began = time.perf_counter()
    engine.start()
    print(f"restart with {count} networks, until it answers: {_ms(time.perf_counter() - began)}")
    engine.kill()
    for link in interfaces.links():
        if link.name.startswith("br-"):
            delete_link(link.name)
    began = time.perf_counter()
    engine.start()
    print(f"start that makes all {count} bridges anew: {_ms(time.perf_counter() - began)}")
    _run(engine, f"n{count // 2}")
    with engine.connect(timeout_s=600) as connection:
        times = []
        for number in range(count):
            began = time.perf_counter()
            assert connection.request("DELETE", f"/networks/n{number}").status == 204
            times.append(time.perf_counter() - began)
    _tell("network rm", times)


def containers(engine: SampanEngine, count: int) -> None:
    """Start them, ask pairs of them, see what it costs, remove them."""
    config = [{"Subnet": "10.99.0.0/16"}]
    made = engine.post("/networks/create", {"Name": "many", "IPAM": {"Config": config}})
    assert made.status == 201, made
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "100000"],
        "HostConfig": {"NetworkMode": "many"},
    }
    times: list[float] = []

    def start(number: int) -> str:
        began = time.perf_counter()
        identity = engine.post("/containers/create", body, name=f"c{number}").json["Id"]
        answer = engine.post(f"/containers/{identity}/start")
        assert answer.status == 204, answer
        times.append(time.perf_counter() - began)
        return str(identity)

    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as executor:
        ids = list(executor.map(start, range(count)))
    print(f"{count} containers, {AT_ONCE} at a time: {time.perf_counter() - began:.1f} s")
    _tell("create + start", times)
    found = engine.get("/networks/many").json["Containers"]
    addresses = {key: each["IPv4Address"].partition("/")[0] for key, each in found.items()}
    assert len(set(addresses.values())) == count
    with open("/proc/meminfo") as file:
        print(
            "".join(line for line in file if line.startswith(("MemTotal", "MemAvailable"))), end=""
        )
    print(f"engine, with all shims: {_memory(engine)} MiB")
    step = max(1, count // PAIRS)
    failed = 0
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as executor:
        pairs = [(ids[n], ids[(n + count // 2 + 7) % count]) for n in range(0, count, step)]
        for code in executor.map(lambda pair: _ping(engine, pair[0], addresses[pair[1]]), pairs):
            failed += code != 0
    took = time.perf_counter() - began
    print(f"{len(pairs)} pairs across the whole network, {failed} of them in vain: {took:.1f} s")
    # One asks all, so that the host's neighbour tables and every segment have a part.
    script = (
        "for a in "
        + " ".join(addresses.values())
        + "; do ping -c 1 -W 5 $a >/dev/null || exit 1; done"
    )
    assert not failed
    began = time.perf_counter()
    code = _exec(engine, ids[count // 3], ["sh", "-c", script])
    print(
        f"one reaches all {count}: {'yes' if code == 0 else 'NO'}, {time.perf_counter() - began:.1f} s"
    )
    names = _exec(engine, ids[0], ["ping", "-c", "1", "-W", "5", f"c{count - 1}"])
    print(f"by name: {'yes' if names == 0 else 'NO'}")
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as executor:
        for answer in executor.map(
            lambda each: engine.delete(f"/containers/{each}", force=True, v=True), ids
        ):
            assert answer.status == 204, answer
    print(f"rm -f of all: {time.perf_counter() - began:.1f} s")
    assert engine.delete("/networks/many").status == 204


def _run(engine: SampanEngine, network: str) -> None:
    """A container on the network reaches its gateway."""
    body = {
        "Image": IMAGE,
        "Cmd": [
            "sh",
            "-c",
            "ping -c 1 -W 5 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')",
        ],
        "HostConfig": {"NetworkMode": network},
    }
    identity = engine.post("/containers/create", body).json["Id"]
    began = time.perf_counter()
    assert engine.post(f"/containers/{identity}/start").status == 204
    print(f"start on {network}: {_ms(time.perf_counter() - began)}")
    assert engine.post(f"/containers/{identity}/wait").json["StatusCode"] == 0
    assert engine.delete(f"/containers/{identity}").status == 204


def _ping(engine: SampanEngine, container: str, address: str) -> int:
    return _exec(engine, container, ["ping", "-c", "1", "-W", "5", address])


def _exec(engine: SampanEngine, container: str, command: list[str]) -> int:
    body = {"Cmd": command, "AttachStdout": True, "Tty": True}
    with Connection(engine.socket, timeout_s=600) as connection:
        identity = connection.request("POST", f"/containers/{container}/exec", body=body).json["Id"]
    with Connection(engine.socket, timeout_s=600) as connection:
        connection.request("POST", f"/exec/{identity}/start", body={"Tty": True})
    return int(engine.get(f"/exec/{identity}/json").json["ExitCode"])


def _memory(engine: SampanEngine) -> int:
    """All the engine's processes, PSS."""
    return pss_bytes(engine) >> 20


def _tell(what: str, times: Sequence[float]) -> None:
    tenth = max(1, len(times) // 10)
    ordered = sorted(times)
    print(
        f"{what}: median {_ms(statistics.median(times))}, p95 {_ms(ordered[int(len(ordered) * 0.95)])}; "
        f"first tenth {_ms(statistics.median(times[:tenth]))}, last tenth {_ms(statistics.median(times[-tenth:]))}"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    main()
