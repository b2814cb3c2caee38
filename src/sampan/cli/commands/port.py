"""`sampan port`: where the ports of a container are published."""

from __future__ import annotations

import sys

from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """List published ports, or the places of one of them."""
    name = call.args[0]
    answer = call.client.call("GET", f"/containers/{quote(name)}/json")
    ports = answer["NetworkSettings"]["Ports"] or {}
    if len(call.args) > 1:
        port, _, protocol = call.args[1].partition("/")
        key = f"{port}/{protocol or 'tcp'}"
        if not ports.get(key):
            raise CommandError(f"no public port '{key}' published for {name}")
        lines = [_place(binding) for binding in ports[key]]
    else:
        lines = [
            f"{key} -> {_place(binding)}"
            for key in sorted(ports, key=_order)
            for binding in ports[key] or ()
        ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _place(binding: dict[str, str]) -> str:
    address, port = binding["HostIp"], binding["HostPort"]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _order(key: str) -> tuple[int, str]:
    port, _, protocol = key.partition("/")
    return int(port), protocol
