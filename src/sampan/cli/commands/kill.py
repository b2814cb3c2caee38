"""`sampan kill`: send a signal to the first process."""

from __future__ import annotations

from sampan.cli.client import query, quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (("signal", "s", "string", "", "Signal to send to the container"),)


def run(call: Call) -> int:
    """Kill containers."""
    values = query(signal=call.text("signal"))
    return for_each(call, "POST", lambda name: f"/containers/{quote(name)}/kill{values}")
