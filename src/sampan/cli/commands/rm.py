"""`sampan rm`: remove containers."""

from __future__ import annotations

from sampan.cli.client import query, quote
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("force", "f", "bool", "", "Force the removal of a running container (uses SIGKILL)"),
    ("link", "l", "bool", "", "Remove the specified link"),
    ("volumes", "v", "bool", "", "Remove anonymous volumes associated with the container"),
)


def run(call: Call) -> int:
    """Remove containers; with --force it is told, but no failure, that there is none."""
    values = query(v=call.on("volumes"), link=call.on("link"), force=call.on("force"))
    names = [name.strip("/") for name in call.args]
    if not all(names):
        raise CommandError("Container name cannot be empty")
    refused = 0

    def failed(name: str, error: CommandError) -> str:
        nonlocal refused
        missing = isinstance(error, ApiError) and error.code == 404
        refused += not (missing and call.on("force"))
        return error.message

    for_each(
        call,
        "DELETE",
        lambda name: f"/containers/{quote(name)}{values}",
        names=names,
        failed=failed,
    )
    return 1 if refused else 0
