"""How fast names are answered at 127.0.0.11, asked at a steady rate from inside a container.

    python -m benchmarks.names [--engines sampan,dockerd] [--rate 2000] [--seconds 5]

Starts each engine, a network, a container that is asked for and one that asks. The asking is done by
this program, in the container's network namespace: a question every 1/RATE s, whether the one before has
been answered or not, so that a resolver that falls behind is seen to. Then the resolver's own cost:
CPU time a question, memory, and what is left of both when the containers are gone.
"""

from __future__ import annotations

import argparse
import os
import secrets
import select
import shutil
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
)

from support.command import docker_clis
from support.engines import IMAGE, DockerEngine, Engine, SampanEngine

AT = ("127.0.0.11", 53)
CLONE_NEWNET = 0x40000000
PATIENCE_S = 2.0  # after the last question
NETWORK = "bench-names"


class Latencies(NamedTuple):
    """Milliseconds; `lost` is how many questions were never answered."""

    median: float
    p99: float
    worst: float
    lost: int


def ask_steadily(pid: int, name: str, rate: float, seconds: float) -> Latencies:
    """Ask for the address of `name` in the network namespace of `pid`."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            with open(f"/proc/{pid}/ns/net") as namespace:
                _setns(namespace.fileno())
            found = _ask(name, rate, seconds)
            os.write(theirs, " ".join(str(value) for value in found).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours) as answer:
        median, p99, worst, lost = answer.read().split()
    os.waitpid(child, 0)
    return Latencies(float(median), float(p99), float(worst), int(lost))


def _setns(fd: int) -> None:
    from sampan.linux import syscalls

    syscalls.setns(fd, CLONE_NEWNET)


def _ask(name: str, rate: float, seconds: float) -> Latencies:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    tail = struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(AT)
    sock.setblocking(False)
    total = int(rate * seconds)
    sent: list[float] = []
    took: list[float] = []
    begin = time.perf_counter()
    deadline = begin + seconds + PATIENCE_S
    while len(took) < total and time.perf_counter() < deadline:
        now = time.perf_counter()
        if len(sent) < total and now >= begin + len(sent) / rate:
            # From when it was due: being late ourselves is no excuse for the answer.
            sock.send((len(sent) & 0xFFFF).to_bytes(2, "big") + tail)
            sent.append(now)
            continue
        due = begin + len(sent) / rate if len(sent) < total else deadline
        if not select.select([sock], [], [], max(0.0, due - now))[0]:
            continue
        number = int.from_bytes(sock.recv(2048)[:2], "big")
        took.append((time.perf_counter() - sent[number]) * 1000)
    took.sort()
    return Latencies(
        statistics.median(took), took[int(len(took) * 0.99)], took[-1], total - len(took)
    )


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mib(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("Pss:"))


def measure(engine: Engine, rate: float, seconds: float, say: Callable[[str], None]) -> None:
    """Print the figures of one engine."""
    cli = engine.cli(next(iter(docker_clis().values())))
    engine.import_busybox()
    cli("network", "create", NETWORK)
    for name in ("asked", "asking"):
        cli("run", "-d", "--name", name, "--network", NETWORK, IMAGE, "sleep", "1000")
    pid = int(cli("inspect", "-f", "{{.State.Pid}}", "asking").line)
    [resolver] = engine.resolver_pids() if isinstance(engine, SampanEngine) else [0]
    before = cpu_s(resolver) if resolver else 0.0
    found = ask_steadily(pid, "asked", rate, seconds)
    say(
        f"| {engine.name} | {found.median:.2f} | {found.p99:.2f} | {found.worst:.1f} | {found.lost} |"
    )
    if resolver:
        used = (cpu_s(resolver) - before) / (rate * seconds) * 1e6
        say(f"\nthe resolver: {used:.0f} us of CPU a question, {pss_mib(resolver):.1f} MiB PSS")
        cli("rm", "-f", "asked", "asking")
        idle = cpu_s(resolver)
        time.sleep(2)
        descriptors = len(os.listdir(f"/proc/{resolver}/fd"))
        say(
            f"without containers: {cpu_s(resolver) - idle:.2f} s of CPU in 2 s, {descriptors} files"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engines", default="sampan,dockerd")
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    token = secrets.token_hex(3)
    directory = f"/tmp/sampan-bench-{token}"
    print(
        f"{options.rate:.0f} questions/s\n\n| ms | median | p99 | worst | lost |\n|---|---|---|---|---|"
    )
    for name in options.engines.split(","):
        kind = SampanEngine if name == "sampan" else DockerEngine
        engine = kind(f"{directory}/{name}", f"{token}{name[0]}")
        try:
            engine.start()
            measure(engine, options.rate, options.seconds, print)
        finally:
            engine.stop()
    shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
