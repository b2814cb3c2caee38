"""`sampan network prune`: remove networks that no running container is in."""

from __future__ import annotations

from sampan.cli import pruning

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
    report = pruning.prune(call, "/networks/prune", call.pairs("filter"))
    pruning.deleted(call, "Networks", report.get("NetworksDeleted") or ())
    return 0
