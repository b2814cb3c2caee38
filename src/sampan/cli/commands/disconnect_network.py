"""`sampan network disconnect`: take a container out of a network, also while it runs."""

from __future__ import annotations

from sampan.cli.client import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (("force", "f", "bool", "", "Force the container to disconnect from a network"),)


def run(call: Call) -> int:
    """Disconnect it."""
    network, container = call.args
    body = {"Container": container, "Force": call.on("force")}
    call.client.call("POST", f"/networks/{quote(network)}/disconnect", body)
    return 0
