"""`sampan restart`: stop and start again."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.commands.stop import FLAGS, timed
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

__all__ = ["FLAGS", "run"]


def run(call: Call) -> int:
    """Restart containers."""
    values = timed(call)
    return for_each(call, "POST", lambda name: f"/containers/{quote(name)}/restart{values}")
