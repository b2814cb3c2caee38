"""`sampan commit`: an image of what a container changed."""

from __future__ import annotations

import sys

from sampan.cli.client import query, quote
from sampan.cli.failures import CommandError
from sampan.cli.references import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("author", "a", "string", "", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
    ("change", "c", "list", "", "Apply Dockerfile instruction to the created image"),
    ("message", "m", "string", "", "Commit message"),
    ("pause", "p", "bool", "true", "Pause container during commit"),
)


def run(call: Call) -> int:
    """Commit a container and print the ID of the image."""
    container = call.args[0]
    reference = call.args[1] if len(call.args) > 1 else ""
    repository, tag, digest = named(reference) if reference else ("", "", "")
    if digest:
        raise CommandError("refusing to create a tag with a digest reference")
    values = query(
        container=container,
        repo=repository,
        tag=tag or ("latest" if repository else ""),
        author=call.text("author"),
        comment=call.text("message"),
        pause="" if call.on("pause") else "0",
    )
    values += "".join(f"&changes={quote(change)}" for change in call.items("change"))
    sys.stdout.write(call.client.call("POST", f"/commit{values}")["Id"] + "\n")
    return 0
