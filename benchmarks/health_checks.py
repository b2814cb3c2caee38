"""What health checks cost: CPU time of the engine's own process, and of the fork server with its children.

    python -m benchmarks.health_checks [--containers 100] [--interval-s 5] [--span-s 30] [--probe]

Each container is checked every so often: by `true`, or with --probe by a TCP connection without a process. CPU time does not depend on what else the
machine does as wall time does, so this may run beside other work. Goal: 3 % of one core for the engine.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import time
from collections.abc import Sequence

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
)

from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for

GOAL_PERCENT = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--interval-s", type=float, default=5.0)
    parser.add_argument("--span-s", type=float, default=30.0)
    parser.add_argument("--probe", action="store_true", help="connect instead of running `true`")
    options = parser.parse_args(argv)
    token = secrets.token_hex(4)
    engine = SampanEngine(f"/tmp/sampan-bench-{token}", token)
    try:
        engine.start()
        engine.import_busybox()
        test = ["TCP", "80"] if options.probe else ["CMD", "true"]
        start_containers(engine, options.containers, options.interval_s, test)
        percent, forks = measure(engine, options.span_s)
    finally:
        engine.remove_containers()
        engine.stop()
        shutil.rmtree(engine.directory, ignore_errors=True)
    print(
        f"{options.containers} containers checked every {options.interval_s:g} s: the engine takes "
        f"{percent:.2f} % of one core (goal {GOAL_PERCENT:g}), processes for the checks {forks:.1f} %"
    )
    return 0 if percent <= GOAL_PERCENT else 1


def start_containers(
    engine: SampanEngine, count: int, interval_s: float, test: Sequence[str]
) -> None:
    """Start them and wait until each has been checked."""
    check = {"Test": test, "Interval": int(interval_s * 1e9)}
    for number in range(count):
        body = {
            "Image": IMAGE,
            "Cmd": ["busybox", "httpd", "-f", "-p", "127.0.0.1:80", "-h", "/"],
            "Healthcheck": check,
            "HostConfig": {"NetworkMode": "none"},
        }
        identity = engine.post("/containers/create", body, name=f"box{number}").json["Id"]
        assert engine.post(f"/containers/{identity}/start").status == 204

    def healthy() -> int:
        return len(engine.get("/containers/json", filters={"health": ["healthy"]}).json)

    wait_for(lambda: healthy() == count, "all to be healthy", timeout_s=60 + 2 * interval_s)


def measure(engine: SampanEngine, span_s: float) -> tuple[float, float]:
    """Percent of one core: of the daemon, and of the fork server with the checks that have ended."""
    assert engine.process is not None
    pids = engine.process.pid, engine.zygote_pid()
    begin, before = time.monotonic(), [cpu_s(pid) for pid in pids]
    time.sleep(span_s)
    span_s, after = time.monotonic() - begin, [cpu_s(pid) for pid in pids]
    own, forks = (100 * (b - a) / span_s for a, b in zip(before, after, strict=True))
    return own, forks


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of its children that were waited for."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(int(field) for field in fields[11:15]) / ticks


if __name__ == "__main__":
    sys.exit(main())
