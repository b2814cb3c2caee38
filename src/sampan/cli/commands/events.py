"""`sampan events`: what happens in the engine, as it happens."""

from __future__ import annotations

import sys
import time

from sampan.cli import inspection, jsontext, moments
from sampan.cli.client import query
from sampan.cli.failures import CommandError
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("filter", "f", "filter", "", "Filter output based on conditions provided"),
    ("format", "", "string", "", inspection.FORMAT_USAGE),
    (
        "since",
        "",
        "string",
        "",
        "Show all events created since timestamp, or behind the event with this ID (Cursor)",
    ),
    ("until", "", "string", "", "Stream events until this timestamp"),
)


_FIELDS = {
    "Status": "status", "ID": "id", "From": "from", "Type": "Type", "Action": "Action",
    "Actor": "Actor", "Scope": "scope", "Time": "time", "TimeNano": "timeNano",
    "Cursor": "Cursor",
}  # fmt: skip


class Event:
    """An event as a template sees it: a Go struct, whose JSON is what the engine sent."""

    type_name = "*events.Message"

    def __init__(self, message: dict[str, Any]) -> None:
        self._message = message

    def field(self, name: str) -> Any:
        if name == "By":
            return who(self._message.get("By") or {})
        key = _FIELDS[name]
        if name == "Actor":
            return Actor(self._message.get("Actor") or {})
        return self._message.get(key, 0 if key.startswith("time") else "")

    def as_json(self) -> dict[str, Any]:
        return self._message


class Actor:
    """Whom an event is about."""

    type_name = "events.Actor"

    def __init__(self, actor: dict[str, Any]) -> None:
        self._actor = actor

    def field(self, name: str) -> Any:
        if name not in ("ID", "Attributes"):
            raise KeyError(name)
        return self._actor.get(name)

    def as_json(self) -> dict[str, Any]:
        return self._actor

    def __str__(self) -> str:
        from sampan.cli.gotext import printed

        return f"{{{self._actor.get('ID', '')} {printed(self._actor.get('Attributes') or {})}}}"


def who(by: dict[str, Any]) -> str:
    """Who asked: `uid=0 gid=0 pid=77`, or an address; `nobody` when the engine did it by itself."""
    return " ".join(f"{name.lower()}={by[name]}" for name in by) or "nobody"


def since(text: str) -> str:
    """The value of --since for the API: a moment, or an event's ID as it is."""
    if text[:1] == "e" and text[1:].isdecimal():
        return text
    return moments.api_time(text) if text else ""


def run(call: Call) -> int:
    """Print events until --until, or until interrupted."""
    form = call.text("format")
    program = None
    if form not in ("", "json"):
        from sampan.cli import template

        try:
            program = template.parse(form.replace("\\t", "\t").replace("\\n", "\n"))
        except template.ParseError as error:
            raise CommandError(f"Error parsing format: {error.detail}", status=64) from None
    values = query(
        since=since(call.text("since")),
        until=moments.api_time(call.text("until")) if call.text("until") else "",
        filters=filters_json(call.pairs("filter")),
    )
    response = call.client.open("GET", f"/events{values}")
    for message in response.values():
        if program is not None:
            line = program.run(Event(message))
        else:
            line = jsontext.encode(message) if form == "json" else _line(message)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def _line(message: dict[str, Any]) -> str:
    nanoseconds = message.get("timeNano") or message.get("time", 0) * 1_000_000_000
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    zone = "Z" if zone in ("+0000", "") else f"{zone[:3]}:{zone[3:]}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{fraction:09d}{zone}"
    actor = message.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    told = ", ".join(f"{name}={attributes[name]}" for name in sorted(attributes))
    line = f"{stamp} {message['Type']} {message['Action']} {actor.get('ID', '')}"
    return f"{line} ({told})" if told else line
