"""Events as `GET /events` shows them."""

from __future__ import annotations

from typing import Any

from sampan.engine.events import Event
from sampan.engine.requester import Requester


def shown(event: Event) -> dict[str, Any]:
    """The event, with the fields of versions before 1.22 in front where the type had them.

    `Cursor` and `By` are our own: the event's ID for `since`, and who asked, if anybody did.
    """
    document: dict[str, Any] = {}
    if event.type == "container":
        document = {"status": event.action, "id": event.id}
        if image := event.attributes.get("image"):
            document["from"] = image
    elif event.type == "image":
        document = {"status": event.action, "id": event.id}
    document |= {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": event.scope,
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
        "Cursor": event.cursor,
    }
    if event.by is not None:
        document["By"] = requester(event.by)
    return document


def requester(by: Requester) -> dict[str, Any]:
    """Who asked, our own: `Uid`, `Gid` and `Pid`, or `Address` and perhaps `Certificate`."""
    values = {
        "Uid": by.uid,
        "Gid": by.gid,
        "Pid": by.pid,
        "Address": by.address or None,
        "Certificate": by.certificate or None,
    }
    return {name: value for name, value in values.items() if value is not None}
