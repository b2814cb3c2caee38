"""`sampan volume prune`: remove volumes that no container has."""

from __future__ import annotations

from sampan.cli import pruning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("all", "a", "bool", "", "Remove all unused volumes, not just anonymous ones"),
    ("filter", "", "filter", "", 'Provide filter values (e.g. "label=<label>")'),
    ("force", "f", "bool", "", "Do not prompt for confirmation"),
)

WARNING = "WARNING! This will remove anonymous local volumes not used by at least one container."
WARNING_ALL = "WARNING! This will remove all local volumes not used by at least one container."


def run(call: Call) -> int:
    """Remove the anonymous volumes, or all, that no container has."""
    everything = call.on("all")
    if not call.on("force") and not pruning.confirmed(WARNING_ALL if everything else WARNING):
        return 0
    pairs = [*([("all", "true")] if everything else ()), *call.pairs("filter")]
    report = pruning.prune(call, "/volumes/prune", pairs)
    pruning.deleted(call, "Volumes", report.get("VolumesDeleted") or ())
    pruning.reclaimed(call, report)
    return 0
