"""`sampan volume rm`: remove volumes and what is in them."""

from __future__ import annotations

from sampan.cli.client import query, quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (("force", "f", "bool", "", "Force the removal of one or more volumes"),)


def run(call: Call) -> int:
    """Remove them; what cannot be removed is told, and the others go."""
    failures = []
    for name in call.args:
        try:
            call.client.call("DELETE", f"/volumes/{quote(name)}{query(force=call.on('force'))}")
        except CommandError as error:
            failures.append(error.message)
        else:
            call.say(name)
    for failure in failures:
        call.complain(failure)
    return 1 if failures else 0
