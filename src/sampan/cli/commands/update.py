"""`sampan update`: change the limits and the restart policy of containers, at once."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    (
        "after",
        "",
        "list",
        "",
        "Containers that have to run, or be healthy, before (NAME[:healthy])",
    ),
    (
        "blkio-weight",
        "",
        "uint16",
        "",
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    ),
    ("cpu-period", "", "int", "", "Limit CPU CFS (Completely Fair Scheduler) period"),
    ("cpu-quota", "", "int", "", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    ("cpu-rt-period", "", "int", "", "Limit the CPU real-time period in microseconds"),
    ("cpu-rt-runtime", "", "int", "", "Limit the CPU real-time runtime in microseconds"),
    ("cpu-shares", "c", "int", "", "CPU shares (relative weight)"),
    ("cpus", "", "decimal", "", "Number of CPUs"),
    ("cpuset-cpus", "", "string", "", "CPUs in which to allow execution (0-3, 0,1)"),
    ("cpuset-mems", "", "string", "", "MEMs in which to allow execution (0-3, 0,1)"),
    ("kernel-memory", "", "bytes", "", ""),
    ("memory", "m", "bytes", "", "Memory limit"),
    ("memory-reservation", "", "bytes", "", "Memory soft limit"),
    (
        "memory-swap",
        "",
        "swapbytes",
        "",
        "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
    ),
    (
        "net-rate",
        "",
        "string",
        "",
        "Limit what is received and sent (in=10mbit,out=5mbit; none for no limit)",
    ),
    (
        "network-policy",
        "",
        "string",
        "",
        "What connections may be opened to (none|full|allow:NAME|SUBNET[:PORT],...)",
    ),
    (
        "on-unhealthy",
        "",
        "string",
        "",
        "What to do when the container is unhealthy (restart[:N]|stop|none)",
    ),
    ("pids-limit", "", "int", "", "Tune container pids limit (set -1 for unlimited)"),
    ("publish-add", "", "list", "", "Publish a container's port(s), as run's --publish"),
    (
        "publish-rm",
        "",
        "list",
        "",
        "Take back a published port ([[ip:]hostPort:]containerPort[/proto])",
    ),
    ("restart", "", "string", "", "Restart policy to apply when a container exits"),
    ("ttl", "", "string", "", "How long the container may live from now on; 0 for no limit"),
)


def run(call: Call) -> int:
    """Change containers, one after the other; warnings come last, as docker has it."""
    if not call.changed:
        raise CommandError("you must provide one or more flags when using this command")
    body = _body(call)
    warnings: list[str] = []
    failures: list[str] = []
    for name in call.args:
        try:
            answer = call.client.call("POST", f"/containers/{quote(name)}/update", body)
        except CommandError as error:
            failures.append(error.message)
            continue
        call.say(name)
        warnings += answer.get("Warnings") or ()
    if warnings:
        call.say("\n".join(warnings))
    if failures:
        raise CommandError("\n".join(failures))
    return 0


def _body(call: Call) -> dict[str, Any]:
    from sampan.cli.create_request import restart_policy

    annotations = {
        f"sampan.{flag}": call.text(flag)
        for flag in ("net-rate", "network-policy", "on-unhealthy", "ttl")
        if flag in call.changed
    }
    if "after" in call.changed:
        annotations["sampan.after"] = ",".join(call.items("after"))
    return {
        **({"Annotations": annotations} if annotations else {}),
        **_ports(call),
        "BlkioWeight": call.number("blkio-weight"),
        "CpuPeriod": call.number("cpu-period"),
        "CpuQuota": call.number("cpu-quota"),
        "CpuRealtimePeriod": call.number("cpu-rt-period"),
        "CpuRealtimeRuntime": call.number("cpu-rt-runtime"),
        "CpuShares": call.number("cpu-shares"),
        "CpusetCpus": call.text("cpuset-cpus"),
        "CpusetMems": call.text("cpuset-mems"),
        "KernelMemory": call.number("kernel-memory"),
        "Memory": call.number("memory"),
        "MemoryReservation": call.number("memory-reservation"),
        "MemorySwap": call.number("memory-swap"),
        "NanoCpus": call.number("cpus"),
        "PidsLimit": call.number("pids-limit") if "pids-limit" in call.changed else None,
        "RestartPolicy": restart_policy(call.text("restart")),
    }


def _ports(call: Call) -> dict[str, Any]:
    """Ports to publish and to take back; a port without one of the host: all of it."""
    if not (call["publish-add"] or call["publish-rm"]):
        return {}
    from sampan.cli.create_parts import bindings

    removed = {
        port: [place for place in places if place["HostIp"] or place["HostPort"]]
        for port, places in bindings(call, "publish-rm").items()
    }
    return {"PublishAdd": bindings(call, "publish-add"), "PublishRemove": removed}
