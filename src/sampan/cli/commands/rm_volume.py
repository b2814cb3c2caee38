"""`sampan volume rm`: remove volumes and what is in them."""

from __future__ import annotations

from sampan.cli.client import query, quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (("force", "f", "bool", "", "Force the removal of one or more volumes"),)


def run(call: Call) -> int:
    """Remove them; what cannot be removed is told, and the others go."""
    values = query(force=call.on("force"))
    return for_each(call, "DELETE", lambda name: f"/volumes/{quote(name)}{values}")
