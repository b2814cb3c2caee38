"""`sampan network inspect`."""

from __future__ import annotations

from sampan.cli import inspection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (inspection.FORMAT, ("verbose", "v", "bool", "", "Verbose output for diagnostics"))


def run(call: Call) -> int:
    """Inspect networks."""
    return inspection.show(call, lambda name: inspection.network(call, name))
