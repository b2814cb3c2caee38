"""`sampan system df --why OBJECT`: what holds it, or when it goes."""

from __future__ import annotations

import sys

from sampan.cli import tabular, units
from sampan.cli.client import query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call


def tell(call: Call, wanted: str) -> int:
    """Ask the engine about an object and print what it says, a paragraph for each meaning."""
    answer = call.client.call("GET", "/system/df/why" + query(object=wanted))
    if "Account" in answer:
        _account(call, answer["Account"])
    else:
        call.say("\n\n".join(_paragraph(found) for found in answer["Objects"]))
    return 0


def _account(call: Call, account: dict[str, Any]) -> None:
    """All of the data root by kind of owner, and what belongs to nothing."""
    rows = [("KIND", "COUNT", "FILES", "SIZE", "ON DISK")]
    for kind, total in [*account["Kinds"].items(), ("all", _sums(account))]:
        rows.append(
            (
                kind,
                str(total["Count"]),
                str(total["Files"]),
                units.human_size(total["Bytes"]),
                units.human_size(total["DiskBytes"]),
            )
        )
    sys.stdout.write(tabular.align(rows))
    for name in account["Unowned"]:
        call.say(f"needed by nothing: {name}")
    for text in account["Differences"]:
        call.say(f"not as recorded: {text}")


def _sums(account: dict[str, Any]) -> dict[str, int]:
    kinds = account["Kinds"].values()
    return {name: sum(kind[name] for kind in kinds) for name in ("Count", "Files", "Bytes", "DiskBytes")}  # fmt: skip


def _paragraph(found: dict[str, Any]) -> str:
    names = ", ".join(found.get("Names") or ())
    size = units.human_size(found["Bytes"])
    lines = [f"{found['Kind']} {found['Id']}{f' ({names})' if names else ''}: {size}"]
    for holder in found.get("HeldBy") or ():
        lines.append(f"  held by {_holder(holder)}")
    freed = found.get("FreedBytes") or 0
    lines.append(f"  {found['Goes']}")
    if 0 < freed < found["Bytes"]:
        rest = units.human_size(found["Bytes"] - freed)
        lines.append(
            f"  {units.human_size(freed)} come back then; {rest} are shared with other images"
        )
    return "\n".join(lines)


def _holder(holder: dict[str, Any]) -> str:
    match holder["Kind"]:
        case "image":
            return f"image {units.short_id(holder['Id'])} ({holder['Text']})"
        case "container":
            return f"container {units.short_id(holder['Id'])} ({holder['Text']})"
        case "child":
            return f"image {units.short_id(holder['Id'])}, which was committed on it"
        case "pin":
            return str(holder["Text"])
        case kind:
            return f"{kind} {holder['Text']}"
