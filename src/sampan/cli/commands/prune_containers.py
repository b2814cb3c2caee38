"""`sampan container prune`: remove containers that nothing needs."""

from __future__ import annotations

from sampan.cli import pruning

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
    report = pruning.prune(call, "/containers/prune", call.pairs("filter"))
    pruning.deleted(call, "Containers", report.get("ContainersDeleted") or ())
    pruning.reclaimed(call, report)
    return 0
