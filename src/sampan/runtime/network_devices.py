"""`linux.netDevices`: interfaces of the machine that move into the container's network namespace."""

from __future__ import annotations

from sampan.errors import RuntimeFailure
from sampan.linux import interfaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def move(devices: Mapping[str, Mapping[str, Any]], pid: int) -> None:
    """Move each named interface, renamed where asked, keeping its global addresses, and up.

    Raises:
        RuntimeFailure: stage `network`: no such interface, the new name is taken.
    """
    for name, options in devices.items():
        try:
            interfaces.move_link(name, netns_pid=pid, new_name=(options or {}).get("name") or name)
        except OSError as error:
            raise RuntimeFailure(
                "network",
                f"move network device {name}: {(error.strerror or str(error)).lower()}",
                path=name,
                errno=error.errno,
            ) from error
