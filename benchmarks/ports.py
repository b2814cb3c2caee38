"""What published ports cost: a container with many of them, and many connections through one.

    python -m benchmarks.ports [--ports 1000] [--connections 10000]

A daemon in a network namespace of its own, beside another that plays the clients. Memory is the PSS of all
the engine's processes, before and after; for the ports of one container taken at its start, and for
those added and removed one by one while it runs.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import sys
import threading
import time

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
)

from benchmarks.memory import engine_processes, pss_bytes
from support.engines import IMAGE, SampanEngine
from support.netns import listen
from support.world import HOST_ADDRESS, World

FIRST_PORT = 20000
LIVE = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ports", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=10000)
    options = parser.parse_args()
    token = secrets.token_hex(3)
    directory = f"/tmp/sampan-bench-{token}"
    world = World()
    try:
        with world.host.entered():
            engine = SampanEngine(directory, token)
            try:
                engine.start()
                engine.import_busybox()
                measure_ports(engine, options.ports)
                measure_connections(engine, world, options.connections)
            finally:
                engine.stop()
    finally:
        world.close()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def measure_ports(engine: SampanEngine, ports: int) -> None:
    """A container without ports, one with all of them, ports that come and go."""
    start(engine, 0)  # what the first container makes the engine load is not the ports'
    start(engine, 1)
    empty, processes = pss_bytes(engine), len(engine_processes(engine))
    _, plain_took = start(engine, 0)
    plain, one_more = pss_bytes(engine), len(engine_processes(engine)) - processes
    identity, took = start(engine, ports)
    memory = pss_bytes(engine) - plain - (plain - empty)
    more = len(engine_processes(engine)) - processes - 2 * one_more
    print(
        f"{ports} ports: {(took - plain_took) / ports * 1e6:.0f} us a port at the start, "
        f"{memory / 2**20:.1f} MiB, {more} processes"
    )
    begin = time.perf_counter()
    for verb in ("PublishAdd", "PublishRemove"):
        for number in range(LIVE):
            port = FIRST_PORT + ports + 10 + number
            body = {verb: {"80/tcp": [{"HostPort": str(port)}]}}
            answer = engine.post(f"/containers/{identity}/update", body)
            assert answer.status == 200, answer
    each = (time.perf_counter() - begin) / LIVE / 2
    print(f"live, added or removed: {each * 1e3:.2f} ms a port, the request included")
    begin = time.perf_counter()
    engine.kill()
    engine.start()
    print(f"the next daemon is ready after {time.perf_counter() - begin:.2f} s")


def measure_connections(engine: SampanEngine, world: World, connections: int) -> None:
    """One after the other through one port, a byte each way."""
    identity, _ = start(engine, 1, FIRST_PORT - 1)
    shown = engine.get(f"/containers/{identity}/json").json
    address = shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    with open(f"/proc/{shown['State']['Pid']}/ns/net") as namespace:
        _setns(namespace.fileno())
        server = listen(address, 80)
        server.listen(1024)
    with open(f"/proc/{engine.process.pid}/ns/net") as namespace:  # type: ignore[union-attr]
        _setns(namespace.fileno())
    thread = threading.Thread(target=answer_all, args=(server, connections))
    thread.start()
    begin = time.perf_counter()
    with world.internet.entered():
        for _ in range(connections):
            client = socket.create_connection((HOST_ADDRESS, FIRST_PORT - 1), 30)
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            client.close()
    took = time.perf_counter() - begin
    thread.join()
    server.close()
    print(f"{connections} connections through one port: {took / connections * 1e6:.0f} us each")


def answer_all(server: socket.socket, connections: int) -> None:
    for _ in range(connections):
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(accepted.recv(1))


def start(engine: SampanEngine, ports: int, first: int = FIRST_PORT) -> tuple[str, float]:
    """A container with so many published ports; its ID, and how long its start took in seconds."""
    bindings = {
        f"{number + 80}/tcp": [{"HostPort": str(first + number)}] for number in range(ports)
    }
    if ports == 1 and first == FIRST_PORT:
        bindings = {"80/tcp": [{"HostPort": ""}]}
    created = engine.post(
        "/containers/create",
        {
            "Image": IMAGE,
            "Cmd": ["sleep", "1000"],
            "ExposedPorts": {port: {} for port in bindings},
            "HostConfig": {"PortBindings": bindings},
        },
    )
    assert created.status == 201, created
    identity = str(created.json["Id"])
    begin = time.perf_counter()
    started = engine.post(f"/containers/{identity}/start")
    took = time.perf_counter() - begin
    assert started.status == 204, started
    return identity, took


def _setns(fd: int) -> None:
    from sampan.linux import syscalls

    syscalls.setns(fd, syscalls.CLONE_NEWNET)


if __name__ == "__main__":
    sys.exit(main())
