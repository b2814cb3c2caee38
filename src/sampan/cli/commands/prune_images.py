"""`sampan image prune`: remove images that nothing needs."""

from __future__ import annotations

from sampan.cli import pruning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    report = pruning.prune(call, "/images/prune", pairs)
    pruning.deleted(call, "Images", [_shown(item) for item in report.get("ImagesDeleted") or ()])
    pruning.reclaimed(call, report)
    return 0


def _shown(item: dict[str, Any]) -> str:
    """`untagged: NAME` or `deleted: ID`."""
    if item.get("Untagged"):
        return f"untagged: {item['Untagged']}"
    return f"deleted: {item.get('Deleted')}"
