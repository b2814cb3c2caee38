"""`sampan stats`: what containers use, once or every second."""

from __future__ import annotations

import sys
import time

from sampan.cli import listing, units
from sampan.cli.client import query, quote
from sampan.cli.commands.ps import FORMAT_USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("all", "a", "bool", "", "Show all containers (default shows just running)"),
    ("format", "", "string", "", FORMAT_USAGE),
    ("no-stream", "", "bool", "", "Disable streaming stats and only pull the first result"),
    ("no-trunc", "", "bool", "", "Do not truncate output"),
)

COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
INTERVAL_S = 1.0

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


class Usage:
    """A container's figures, and those of a moment before."""

    __slots__ = ("asked", "before", "now")

    def __init__(self, asked: str, now: dict[str, Any], before: dict[str, Any] | None) -> None:
        self.asked = asked
        self.now = now
        self.before = before

    def cpu_percent(self) -> float:
        """Of one CPU, as Docker counts: 200 is two CPUs at work all the time."""
        cpu, before = self.now["cpu_stats"], (self.before or {}).get("cpu_stats") or {}
        system = cpu.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
        if not before.get("system_cpu_usage") or system <= 0:
            return 0.0
        used: int = cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
        share: float = max(0, used) / system * (cpu.get("online_cpus") or 1)
        return share * 100.0

    def memory(self) -> tuple[int, int]:
        """(bytes without what the page cache can give back, limit)."""
        memory = self.now["memory_stats"]
        details = memory.get("stats") or {}
        cache = details.get("total_inactive_file", details.get("inactive_file", 0))
        used = memory.get("usage", 0)
        return (used - cache if cache < used else used), memory.get("limit", 0)

    def network(self) -> tuple[int, int]:
        """Bytes (received, sent)."""
        devices = (self.now.get("networks") or {}).values()
        return sum(d["rx_bytes"] for d in devices), sum(d["tx_bytes"] for d in devices)

    def blocks(self) -> tuple[int, int]:
        """Bytes (read, written)."""
        entries = self.now["blkio_stats"].get("io_service_bytes_recursive") or ()
        sums = {"read": 0, "write": 0}
        for entry in entries:
            kind = entry["op"].lower()
            if kind in sums:
                sums[kind] += entry["value"]
        return sums["read"], sums["write"]


def _memory(usage: Usage, _: bool) -> str:
    used, limit = usage.memory()
    return f"{units.binary_size(used)} / {units.binary_size(limit)}"


def _memory_percent(usage: Usage, _: bool) -> str:
    used, limit = usage.memory()
    return f"{used / limit * 100 if limit else 0:.2f}%"


def _pair(both: tuple[int, int]) -> str:
    return f"{units.human_size(both[0], 3)} / {units.human_size(both[1], 3)}"


def _identifier(usage: Usage, truncate: bool) -> str:
    identifier = str(usage.now["id"])
    return identifier[:12] if truncate else identifier


KIND = listing.Kind(
    "container.statsContext",
    {
        "Container": lambda usage, _: usage.asked,
        "ID": _identifier,
        "Name": lambda usage, _: usage.now["name"].removeprefix("/"),
        "CPUPerc": lambda usage, _: f"{usage.cpu_percent():.2f}%",
        "MemUsage": _memory,
        "MemPerc": _memory_percent,
        "NetIO": lambda usage, _: _pair(usage.network()),
        "BlockIO": lambda usage, _: _pair(usage.blocks()),
        "PIDs": lambda usage, _: str(usage.now["pids_stats"].get("current", 0)),
    },
    {
        "Container": "CONTAINER",
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
)


def run(call: Call) -> int:
    """Print a list, or one a second until interrupted or none of the containers is left."""
    before = _ask(call, call.args)
    clear = _CLEAR if sys.stdout.isatty() and not call.on("no-stream") else ""
    while True:
        time.sleep(INTERVAL_S)
        now = _ask(call, call.args)
        listing_of = [Usage(asked, figures, before.get(asked)) for asked, figures in now.items()]
        sys.stdout.write(clear)
        listing.print_list(
            KIND,
            listing_of,
            COLUMNS,
            form=call.text("format"),
            quiet=False,
            truncate=not call.on("no-trunc"),
        )
        sys.stdout.flush()
        if call.on("no-stream") or (call.args and not now):
            return 0
        before = now


def _ask(call: Call, names: list[str]) -> dict[str, dict[str, Any]]:
    """The figures of now, by the name that was given, or else by the short ID."""
    if not names:
        found = call.client.call("GET", "/containers/json" + query(all=call.on("all")))
        names = [container["Id"][:12] for container in found]
    return {
        name: call.client.call("GET", f"/containers/{quote(name)}/stats?stream=0&one-shot=1")
        for name in names
    }
