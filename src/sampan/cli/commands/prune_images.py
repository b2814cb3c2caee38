"""`sampan image prune`: remove images that nothing needs."""

from __future__ import annotations

from sampan.cli import pruning
from sampan.cli.client import query
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("all", "a", "bool", "", "Remove all unused images, not just dangling ones"),
    ("filter", "", "filter", "", 'Provide filter values (e.g. "until=<timestamp>")'),
    ("force", "f", "bool", "", "Do not prompt for confirmation"),
)

WARNING = "WARNING! This will remove all dangling images."
WARNING_ALL = (
    "WARNING! This will remove all images without at least one container associated to them."
)


def run(call: Call) -> int:
    """Remove the images that have no name, or all that no container uses."""
    everything = call.on("all")
    if not call.on("force") and not pruning.confirmed(WARNING_ALL if everything else WARNING):
        return 0
    pairs = [("dangling", "false" if everything else "true"), *call.pairs("filter")]
    report = call.client.call("POST", f"/images/prune{query(filters=filters_json(pairs))}")
    deleted = report.get("ImagesDeleted") or ()
    if deleted:
        call.say("Deleted Images:")
        for item in deleted:
            word = "untagged" if item.get("Untagged") else "deleted"
            call.say(f"{word}: {item.get('Untagged') or item.get('Deleted')}")
        call.say("")
    pruning.reclaimed(call, report)
    return 0
