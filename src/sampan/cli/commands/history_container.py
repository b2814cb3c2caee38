"""`sampan container history`: how the runs of a container ended, also of one that is gone."""

from __future__ import annotations

import sys

from sampan.cli import listing, units
from sampan.cli.client import query, quote
from sampan.cli.commands.ps import FORMAT_USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("format", "", "string", "", FORMAT_USAGE),
    ("last", "n", "int", "0", "Show the last n runs (default all)"),
    ("no-trunc", "", "bool", "", "Don't truncate output"),
    ("quiet", "q", "bool", "", "Only show container IDs"),
)

COLUMNS = ("ID", "Name", "Ended", "Ran", "Cause", "CPU", "PeakMemory", "BlockIO")
COMMAND_WIDTH = 60
CAUSE_WIDTH = 60


def run(call: Call) -> int:
    """Print the runs, the last to end first."""
    values = query(limit=call.number("last") or "")
    runs = call.client.call("GET", f"/containers/{quote(call.args[0])}/history{values}")
    form, truncate = call.text("format"), not call.on("no-trunc")
    if form or call.on("quiet"):
        listing.print_list(
            KIND, runs, COLUMNS, form=form, quiet=call.on("quiet"), truncate=truncate
        )
        return 0
    blocks = ["".join(f"{line}\n" for line in _told(one, truncate)) for one in runs]
    sys.stdout.write("\n".join(blocks))
    return 0


def _told(one: dict[str, Any], truncate: bool) -> Iterator[str]:
    """A run in lines for people."""
    command = _command(one, truncate)
    yield f"{one['Name']}  {_id(one, truncate)}  {one['Image']}  {command}"
    yield f"  ended   {one['FinishedAt']}, {_ended(one, truncate)}" + (
        f", after {_ran(one, truncate)}" if one["StartedAt"] else ""
    )
    yield f"  cause   {_printable(one['Cause'])}"
    used = [
        text
        for text in (
            f"CPU {_cpu(one, truncate)}" if "CPUNanoseconds" in one["Usage"] else "",
            f"memory at most {_memory(one, truncate)}" if "PeakMemory" in one["Usage"] else "",
            f"read / written {_block_io(one, truncate)}" if "ReadBytes" in one["Usage"] else "",
        )
        if text
    ]
    if used:
        yield f"  used    {', '.join(used)}"
    for kill in one["KilledForMemory"]:
        size = units.binary_size(kill["Resident"])
        yield f"  killed  {_printable(kill['Process'])}, pid {kill['Pid']}, uid {kill['Uid']}, {size}"
    for number, line in enumerate(one["Output"]):
        yield f"  {'output' if number == 0 else '':6}  {_printable(line['Text'])}"


def _printable(text: str) -> str:
    """Text of a container as it may be shown: no letter of it steers the terminal."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\t" else units.quote(letter)[1:-1]
        for letter in text
    )


def _id(one: dict[str, Any], truncate: bool) -> str:
    return str(one["Id"])[:12] if truncate else str(one["Id"])


def _command(one: dict[str, Any], truncate: bool) -> str:
    text = str(one["Command"])
    return units.quote(units.ellipsis(text, COMMAND_WIDTH) if truncate else text)


def _cause(one: dict[str, Any], truncate: bool) -> str:
    text = _printable(one["Cause"])
    return units.ellipsis(text, CAUSE_WIDTH) if truncate else text


def _ended(one: dict[str, Any], _: bool) -> str:
    return units.ago(units.parse_rfc3339(one["FinishedAt"]))


def _ran(one: dict[str, Any], _: bool) -> str:
    if not one["StartedAt"]:
        return "--"
    ran = units.parse_rfc3339(one["FinishedAt"]) - units.parse_rfc3339(one["StartedAt"])
    return f"{max(0.0, ran):.3f} s" if ran < 60 else units.human_duration(ran).lower()


def _cpu(one: dict[str, Any], _: bool) -> str:
    used = one["Usage"].get("CPUNanoseconds")
    return "--" if used is None else f"{used / 1e9:.3f} s"


def _memory(one: dict[str, Any], _: bool) -> str:
    peak = one["Usage"].get("PeakMemory")
    if peak is None:
        return "--"
    limit = f" of {units.binary_size(one['MemoryLimit'])}" if one["MemoryLimit"] else ""
    return units.binary_size(peak) + limit


def _block_io(one: dict[str, Any], _: bool) -> str:
    usage = one["Usage"]
    if "ReadBytes" not in usage:
        return "--"
    return f"{units.human_size(usage['ReadBytes'], 3)} / {units.human_size(usage['WriteBytes'], 3)}"


def _sender(one: dict[str, Any], _: bool) -> str:
    by = one.get("SentBy") or {}
    return " ".join(f"{name.lower()}={by[name]}" for name in by)


KIND = listing.Kind(
    "runContext",
    {
        "ID": _id,
        "Name": lambda one, _: one["Name"],
        "Image": lambda one, _: one["Image"],
        "Command": _command,
        "StartedAt": lambda one, _: one["StartedAt"],
        "FinishedAt": lambda one, _: one["FinishedAt"],
        "Ended": _ended,
        "Ran": _ran,
        "Cause": _cause,
        "ExitCode": lambda one, _: one["ExitCode"],
        "Signal": lambda one, _: one["Signal"],
        "OOMKilled": lambda one, _: one["OOMKilled"],
        "RestartCount": lambda one, _: one["RestartCount"],
        "CPU": _cpu,
        "PeakMemory": _memory,
        "BlockIO": _block_io,
        "SentBy": _sender,
        "Output": lambda one, _: "\n".join(line["Text"] for line in one["Output"]),
    },
    {
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "StartedAt": "STARTED AT",
        "FinishedAt": "FINISHED AT",
        "Ended": "ENDED",
        "Ran": "RAN",
        "Cause": "CAUSE",
        "ExitCode": "EXIT CODE",
        "Signal": "SIGNAL",
        "OOMKilled": "OOM KILLED",
        "RestartCount": "RESTARTS",
        "CPU": "CPU",
        "PeakMemory": "PEAK MEMORY",
        "BlockIO": "BLOCK I/O",
        "SentBy": "SENT BY",
        "Output": "OUTPUT",
    },
)
