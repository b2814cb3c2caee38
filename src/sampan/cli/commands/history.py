"""`sampan history`: how an image came about."""

from __future__ import annotations

import time

from sampan.cli import listing, platforms, units
from sampan.cli.client import query, quote
from sampan.cli.commands.ps import FORMAT_USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("format", "", "string", "", FORMAT_USAGE),
    ("human", "H", "bool", "true", "Print sizes and dates in human readable format"),
    ("no-trunc", "", "bool", "", "Don't truncate output"),
    ("platform", "", "string", "", "Show history for the given platform: os[/arch[/variant]]"),
    ("quiet", "q", "bool", "", "Only show image IDs"),
)

CREATED_BY_WIDTH = 45


def _identifier(row: dict[str, Any], truncate: bool) -> str:
    return units.short_id(row["Id"]) if truncate else str(row["Id"])


def _created_at(row: dict[str, Any], _: bool) -> str:
    """RFC 3339 in the local zone; nothing for a line without a time."""
    created = row["Created"]
    if created < 0:
        return ""
    moment = time.localtime(created)
    zone = time.strftime("%z", moment)
    offset = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + offset


def _created_since(row: dict[str, Any], truncate: bool) -> str:
    if not row["human"]:
        return _created_at(row, truncate)
    return "N/A" if row["Created"] < 0 else units.ago(row["Created"])


def _created_by(row: dict[str, Any], truncate: bool) -> str:
    text = str(row["CreatedBy"]).replace("\t", " ")
    return units.ellipsis(text, CREATED_BY_WIDTH) if truncate else text


KIND = listing.Kind(
    "historyContext",
    {
        "ID": _identifier,
        "CreatedAt": _created_at,
        "CreatedSince": _created_since,
        "CreatedBy": _created_by,
        "Size": lambda row, _: (
            units.human_size(row["Size"], 3) if row["human"] else str(row["Size"])
        ),
        "Comment": lambda row, _: row["Comment"],
    },
    {
        "ID": "IMAGE",
        "CreatedAt": "CREATED AT",
        "CreatedSince": "CREATED",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    },
)


def run(call: Call) -> int:
    """Print the history, newest first."""
    human = call.on("human")
    values = query(platform=platforms.as_json(call.text("platform")))
    found = call.client.call("GET", f"/images/{quote(call.args[0])}/history{values}")
    created = "CreatedSince" if human else "CreatedAt"
    listing.print_list(
        KIND,
        [{**line, "human": human} for line in found],
        ("ID", created, "CreatedBy", "Size", "Comment"),
        form=call.text("format"),
        quiet=call.on("quiet"),
        truncate=not call.on("no-trunc"),
    )
    return 0
