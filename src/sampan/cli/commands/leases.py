"""`sampan lease ls`: the leases."""

from __future__ import annotations

import sys

from sampan.cli import listing
from sampan.cli.commands.ps import FORMAT_USAGE
from sampan.cli.units import human_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("format", "", "string", "", FORMAT_USAGE),
    ("quiet", "q", "bool", "", "Only display lease names"),
)

COLUMNS = ("Name", "Status", "TTL", "Expires", "Holders", "Members")
MEMBERS = ("Execs", "Containers", "Networks", "Volumes")


def _expires(lease: dict[str, Any], _: bool) -> str:
    if lease["ExpiresIn"] is None:
        return "held" if lease["Holders"] else "-"
    return human_duration(lease["ExpiresIn"] / 1e9)


def _members(lease: dict[str, Any], _: bool) -> str:
    counts = [(kind, len(lease.get(kind) or ())) for kind in MEMBERS]
    return ", ".join(
        f"{count} {kind.lower()[: -1 if count == 1 else None]}" for kind, count in counts if count
    )


KIND = listing.Kind(
    "leaseContext",
    {
        "Expires": _expires,
        "Holders": lambda lease, _: str(lease["Holders"]),
        "Members": _members,
        "Name": lambda lease, _: lease["Name"],
        "Status": lambda lease, _: lease["Status"],
        "TTL": lambda lease, _: human_duration(lease["TTL"] / 1e9),
    },
    {
        "Expires": "EXPIRES",
        "Holders": "HOLDERS",
        "Members": "MEMBERS",
        "Name": "NAME",
        "Status": "STATUS",
        "TTL": "TTL",
    },
    (("name", "Name"), ("status", "Status")),
)


def run(call: Call) -> int:
    """List leases."""
    found = call.client.call("GET", "/leases")
    if call.on("quiet") and call.text("format") in ("", "table"):
        sys.stdout.write("".join(lease["Name"] + "\n" for lease in found))
        return 0
    listing.print_list(KIND, found, COLUMNS, form=call.text("format"), quiet=False, truncate=True)
    return 0
