"""`sampan network rm`: remove networks that nobody uses."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (("force", "f", "bool", "", "Do not error if the network does not exist"),)


def run(call: Call) -> int:
    """Remove them; what cannot be removed is told, and the others go."""
    force = call.on("force")
    told = 0

    def failed(_: str, error: CommandError) -> str:
        nonlocal told
        if force and isinstance(error, ApiError) and error.code == 404:
            return ""
        told += 1
        return error.message

    for_each(call, "DELETE", lambda name: f"/networks/{quote(name)}", failed=failed)
    return 1 if told else 0
