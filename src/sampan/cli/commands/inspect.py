"""`sampan inspect`: containers, images, networks and volumes by name or ID."""

from __future__ import annotations

from sampan.cli import inspection
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    inspection.FORMAT,
    ("size", "s", "bool", "", "Display total file sizes if the type is container"),
    ("type", "", "string", "", "Only inspect objects of the given type"),
)

TYPES = ("config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")  # fmt: skip


def run(call: Call) -> int:
    """Inspect objects of any kind, or of the one that --type names."""
    kind = call.text("type")
    kinds: dict[str, Callable[[str], Any]] = {
        "container": lambda name: inspection.container(call, name, size=call.on("size")),
        "image": lambda name: inspection.image(call, name),
        "network": lambda name: inspection.network(call, name),
        "volume": lambda name: inspection.volume(call, name),
    }
    if kind in kinds:
        return inspection.show(call, kinds[kind])
    if kind in TYPES:
        raise CommandError(f"objects of type {kind} are not supported")
    if kind or "type" in call.changed:
        choices = ", ".join(f'"{name}"' for name in TYPES)
        raise CommandError(f'unknown type: "{kind}": must be one of {choices}')

    def anything(name: str) -> Any:
        for fetch in kinds.values():
            try:
                return fetch(name)
            except CommandError as error:
                if not inspection.is_missing(error):
                    raise
        raise CommandError(f"Error: No such object: {name}")

    return inspection.show(call, anything)
