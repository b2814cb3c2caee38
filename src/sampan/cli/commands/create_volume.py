"""`sampan volume create`: make a volume."""

from __future__ import annotations

from sampan.cli.flags import assignments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("driver", "d", "string", '"local"', "Specify volume driver name"),
    ("label", "", "list", "", "Set metadata for a volume"),
    ("lease", "", "string", "", "Lease that the volume goes with"),
    ("name", "", "string", "", ""),
    ("opt", "o", "list", "", "Set driver specific options"),
)


def run(call: Call) -> int:
    """Make it, and say its name."""
    call.use_lease()
    body: dict[str, Any] = {
        "Name": call.args[0] if call.args else call.text("name"),
        "Driver": call.text("driver") or "local",
        "DriverOpts": assignments(call.items("opt")),
        "Labels": assignments(call.items("label")),
    }
    call.say(call.client.call("POST", "/volumes/create", body)["Name"])
    return 0
