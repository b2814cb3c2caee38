"""`sampan container prune`: remove containers that nothing needs."""

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

WARNING = "WARNING! This will remove all stopped containers."


def run(call: Call) -> int:
    """Remove all stopped containers."""
    if not call.on("force") and not pruning.confirmed(WARNING):
        return 0
    values = query(filters=filters_json(call.pairs("filter")))
    report = call.client.call("POST", f"/containers/prune{values}")
    deleted = report.get("ContainersDeleted") or ()
    if deleted:
        call.say("Deleted Containers:")
        for identifier in deleted:
            call.say(identifier)
        call.say("")
    pruning.reclaimed(call, report)
    return 0
