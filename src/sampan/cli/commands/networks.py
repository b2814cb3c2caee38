"""`sampan network ls`: the networks."""

from __future__ import annotations

from sampan.cli import listing
from sampan.cli.client import query
from sampan.cli.commands.ps import FORMAT_USAGE
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("filter", "f", "filter", "", 'Provide filter values (e.g. "driver=bridge")'),
    ("format", "", "string", "", FORMAT_USAGE),
    ("no-trunc", "", "bool", "", "Do not truncate the output"),
    ("quiet", "q", "bool", "", "Only display network IDs"),
)

COLUMNS = ("ID", "Name", "Driver", "Scope")


def _labels(network: dict[str, Any], _: bool) -> str:
    labels = network.get("Labels") or {}
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels))


def _created(network: dict[str, Any], _: bool) -> str:
    """As Go prints a time in UTC."""
    text: str = network.get("Created") or ""
    return text.replace("T", " ", 1).replace("Z", " +0000 UTC")


def _boolean(name: str) -> Any:
    return lambda network, _: "true" if network.get(name) else "false"


KIND = listing.Kind(
    "networkContext",
    {
        "CreatedAt": _created,
        "Driver": lambda network, _: network["Driver"],
        "ID": lambda network, truncate: network["Id"][:12] if truncate else network["Id"],
        "IPv4": _boolean("EnableIPv4"),
        "IPv6": _boolean("EnableIPv6"),
        "Internal": _boolean("Internal"),
        "Labels": _labels,
        "Name": lambda network, _: network["Name"],
        "Scope": lambda network, _: network["Scope"],
    },
    {
        "CreatedAt": "CREATED AT",
        "Driver": "DRIVER",
        "ID": "NETWORK ID",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "Name": "NAME",
        "Scope": "SCOPE",
    },
    (("network_id", "ID"), ("name", "Name"), ("driver", "Driver"), ("scope", "Scope")),
)


def run(call: Call) -> int:
    """List networks, by name."""
    values = query(filters=filters_json(call.pairs("filter")))
    found = call.client.call("GET", f"/networks{values}") or []
    found.sort(key=lambda network: network["Name"])
    listing.print_list(
        KIND,
        found,
        COLUMNS,
        form=call.text("format"),
        quiet=call.on("quiet"),
        truncate=not call.on("no-trunc"),
    )
    return 0
