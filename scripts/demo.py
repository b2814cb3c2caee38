"""`make demo`: a container from the `host` image, what is isolated in it, how long its start took.

Uses an engine of its own in a temporary directory, through the command `sampan` that anybody would type;
leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

BIN = os.path.dirname(sys.executable)
ROUNDS = 10
NETWORKS = (("without a network", ("--network", "none")), ("with the default network", ()))

# Run inside: one line a fact, "name<TAB>value".
LOOK = r"""
fact() { printf '%s\t%s\n' "$1" "$2"; }
fact 'processes' "$(ls /proc | grep -c '^[0-9]') to be seen, this shell is PID $$"
fact 'host name' "$(cat /proc/sys/kernel/hostname)"
fact 'network' "$(ls /sys/class/net | tr '\n' ' ')"
for kind in mnt pid net uts ipc; do fact "namespace $kind" "$(readlink /proc/self/ns/$kind)"; done
fact 'capabilities' "$(grep CapEff /proc/self/status | cut -f 2)"
fact 'seccomp' "$(grep '^Seccomp:' /proc/self/status | cut -f 2) (2: a filter is on)"
fact 'memory limit' "$(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -n 1)"
fact 'processes limit' "$(cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null | head -n 1)"
touch /demo-was-here && rm -f /usr/bin/env && fact 'this machine'\''s files' "wrote /demo-was-here, removed /usr/bin/env"
"""


def main() -> int:
    if os.geteuid() != 0:
        print(
            "make demo: needs root: containers are made of namespaces, mounts and cgroups",
            file=sys.stderr,
        )
        return 1
    directory = tempfile.mkdtemp(prefix="sampan-demo-")
    os.chmod(directory, 0o711)
    daemon = start(directory)
    try:
        show(directory)
    finally:
        daemon.terminate()
        daemon.wait()
        clean(directory)
    return 0


def name_of(directory: str) -> str:
    """A name for what is visible on the machine: the bridge, the nft table, the cgroup."""
    return "demo" + directory[-8:].replace("_", "0").lower()


def start(directory: str) -> subprocess.Popen[bytes]:
    """Start the engine and wait until it listens."""
    name = name_of(directory)
    with open(f"{directory}/log", "wb") as log:
        daemon = subprocess.Popen(
            [
                f"{BIN}/sampand", "-H", f"unix://{directory}/s.sock", "--data-root", f"{directory}/data",
                "--exec-root", f"{directory}/run", "--bridge", name, "--firewall-table", name,
                "--cgroup-parent", f"/{name}", "--trace-start",
            ],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    deadline = time.monotonic() + 20
    while not os.path.exists(f"{directory}/s.sock"):
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            with open(f"{directory}/log") as file:
                sys.exit(f"make demo: the engine does not come up:\n{file.read()[-2000:]}")
        time.sleep(0.01)
    return daemon


def sampan(directory: str, *arguments: str) -> str:
    done = subprocess.run(
        [f"{BIN}/sampan", "-H", f"unix://{directory}/s.sock", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def show(directory: str) -> None:
    command = ("run", "--rm", "--memory", "64m", "--pids-limit", "50", "host", "sh", "-c", LOOK)
    print(f"$ sampan {' '.join(command[:-1])} …\n")
    facts = dict(line.split("\t", 1) for line in sampan(directory, *command).splitlines())
    width = max(map(len, facts))
    for name, value in facts.items():
        if name.startswith("namespace "):
            own = os.readlink(f"/proc/self/ns/{name.split()[1]}")
            value += f"  (here: {own})" if own != value else "  NOT ISOLATED"
        print(f"  {name:{width}}  {value}")
    kept = not os.path.exists("/demo-was-here") and os.path.exists("/usr/bin/env")
    print(
        f"\n  After it: /demo-was-here {'is not here, /usr/bin/env still is: nothing was changed' if kept else 'CHANGED'}\n"
    )

    for label, network in NETWORKS:
        times = []
        seen = len(starts_ms(directory))
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            sampan(directory, "run", "--rm", *network, "host", "true")
            times.append((time.perf_counter() - begin) * 1000)
        inside = statistics.median(starts_ms(directory)[seen:])
        print(
            f"  {label}: from the request to the program's first instruction {inside:.1f} ms;"
            f" the whole `sampan run --rm host true` {statistics.median(times):.0f} ms"
        )
    print(f"  (medians of {ROUNDS}; `make bench` compares with other engines)")


def starts_ms(directory: str) -> list[float]:
    """How long each start so far took, from the daemon's log (`--trace-start`)."""
    with open(f"{directory}/log") as file:
        messages = [line.partition(" msg=")[2] for line in file if "start trace " in line]
    traces = [json.loads(json.loads(message).removeprefix("start trace ")) for message in messages]
    return [
        sum(us for stage, us in trace["stages"] if stage != "started") / 1000 for trace in traces
    ]


def clean(directory: str) -> None:
    name = name_of(directory)
    for command in (["ip", "link", "delete", name], ["nft", "delete", "table", "inet", name]):
        subprocess.run(command, check=False, capture_output=True)
    for base, entries, _ in os.walk("/sys/fs/cgroup"):
        if name in entries:
            for path, _, _ in os.walk(os.path.join(base, name), topdown=False):
                os.rmdir(path)
            entries.remove(name)
        if base.count("/") >= 4:
            entries.clear()
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
