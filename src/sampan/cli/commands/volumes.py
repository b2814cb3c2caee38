"""`sampan volume ls`: the volumes."""

from __future__ import annotations

import sys

from sampan.cli import listing
from sampan.cli.client import query
from sampan.cli.commands.ps import FORMAT_USAGE
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("filter", "f", "filter", "", 'Provide filter values (e.g. "dangling=true")'),
    ("format", "", "string", "", FORMAT_USAGE),
    ("quiet", "q", "bool", "", "Only display volume names"),
)

COLUMNS = ("Driver", "Name")


def _labels(volume: dict[str, Any], _: bool) -> str:
    labels = volume.get("Labels") or {}
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels))


def _unknown(volume: dict[str, Any], _: bool) -> str:
    """What only `system df` finds out."""
    return "N/A"


KIND = listing.Kind(
    "volumeContext",
    {
        "Availability": _unknown,
        "Driver": lambda volume, _: volume["Driver"],
        "Group": _unknown,
        "Labels": _labels,
        "Links": _unknown,
        "Mountpoint": lambda volume, _: volume["Mountpoint"],
        "Name": lambda volume, _: volume["Name"],
        "Scope": lambda volume, _: volume["Scope"],
        "Size": _unknown,
        "Status": _unknown,
    },
    {
        "Availability": "AVAILABILITY",
        "Driver": "DRIVER",
        "Group": "GROUP",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Mountpoint": "MOUNTPOINT",
        "Name": "VOLUME NAME",
        "Scope": "SCOPE",
        "Size": "SIZE",
        "Status": "STATUS",
    },
    (("name", "Name"), ("driver", "Driver")),
)


def run(call: Call) -> int:
    """List volumes."""
    values = query(filters=filters_json(call.pairs("filter")))
    found = call.client.call("GET", f"/volumes{values}").get("Volumes") or []
    found.sort(key=lambda volume: volume["Name"])
    if call.on("quiet") and call.text("format") in ("", "table"):
        sys.stdout.write("".join(volume["Name"] + "\n" for volume in found))
        return 0
    listing.print_list(KIND, found, COLUMNS, form=call.text("format"), quiet=False, truncate=True)
    return 0
