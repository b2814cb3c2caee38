"""`sampan pause`: freeze all processes of containers."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """Pause containers."""
    return for_each(call, "POST", lambda name: f"/containers/{quote(name)}/pause")
