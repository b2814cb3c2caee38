"""`sampan network prune`: remove networks that no running container is in."""

from __future__ import annotations

from sampan.cli import pruning
from sampan.cli.client import query
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("filter", "", "filter", "", 'Provide filter values (e.g. "until=<timestamp>")'),
    ("force", "f", "bool", "", "Do not prompt for confirmation"),
)

WARNING = "WARNING! This will remove all custom networks not used by at least one container."


def run(call: Call) -> int:
    """Remove the networks that nobody uses."""
    if not call.on("force") and not pruning.confirmed(WARNING):
        return 0
    values = query(filters=filters_json(call.pairs("filter")))
    deleted = call.client.call("POST", f"/networks/prune{values}").get("NetworksDeleted") or ()
    if deleted:
        call.say("Deleted Networks:")
        for name in deleted:
            call.say(name)
        call.say("")
    return 0
