"""`sampan network denied`: what network policies refused."""

from __future__ import annotations

from sampan.cli import listing
from sampan.cli.client import quote
from sampan.cli.commands.ps import FORMAT_USAGE
from sampan.cli.units import ago

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("format", "", "string", "", FORMAT_USAGE),
    ("no-trunc", "", "bool", "", "Don't truncate output"),
)

COLUMNS = ("Container", "Destination", "Protocol", "Attempts", "Last")


def _destination(entry: dict[str, Any], _: bool) -> str:
    if entry["Name"]:
        return str(entry["Name"])
    address = entry["Address"]
    if not address:
        return "(others)"
    if not entry["Port"]:
        return str(address)
    return f"[{address}]:{entry['Port']}" if ":" in address else f"{address}:{entry['Port']}"


KIND = listing.Kind(
    "deniedContext",
    {
        "Address": lambda entry, _: entry["Address"],
        "Attempts": lambda entry, _: str(entry["Packets"]),
        "Container": lambda entry, _: entry["ContainerName"],
        "Destination": _destination,
        "ID": lambda entry, truncate: entry["ContainerID"][: 12 if truncate else None],
        "Last": lambda entry, _: ago(entry["Last"]),
        "Name": lambda entry, _: entry["Name"],
        "Port": lambda entry, _: str(entry["Port"] or ""),
        "Protocol": lambda entry, _: "name" if entry["Name"] else entry["Protocol"],
    },
    {
        "Address": "ADDRESS",
        "Attempts": "ATTEMPTS",
        "Container": "CONTAINER",
        "Destination": "DESTINATION",
        "ID": "CONTAINER ID",
        "Last": "LAST",
        "Name": "NAME",
        "Port": "PORT",
        "Protocol": "PROTOCOL",
    },
    (("container", "Container"), ("destination", "Destination"), ("attempts", "Attempts")),
)


def run(call: Call) -> int:
    """List refused destinations and names, of all containers or of some."""
    named = "&".join(f"container={quote(name)}" for name in call.args)
    found = call.client.call("GET", f"/policies/denied{named and '?' + named}")
    listing.print_list(
        KIND,
        found or [],
        COLUMNS,
        form=call.text("format"),
        quiet=False,
        truncate=not call.on("no-trunc"),
    )
    return 0
