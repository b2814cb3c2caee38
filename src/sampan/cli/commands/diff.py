"""`sampan diff`: what a container changed in its file system."""

from __future__ import annotations

import sys

from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()

KINDS = ("C", "A", "D")


def run(call: Call) -> int:
    """Print a line for each changed path: what happened to it, and the path."""
    container = call.args[0]
    if not container:
        raise CommandError("Container name cannot be empty")
    for change in call.client.call("GET", f"/containers/{quote(container)}/changes") or ():
        sys.stdout.write(f"{KINDS[change['Kind']]} {change['Path']}\n")
    return 0
