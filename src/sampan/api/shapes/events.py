"""Events as `GET /events` shows them."""

from __future__ import annotations

from typing import Any

from sampan.engine.events import Event


def shown(event: Event) -> dict[str, Any]:
    """The event, with the fields of versions before 1.22 in front where the type had them."""
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
    }
    return document
