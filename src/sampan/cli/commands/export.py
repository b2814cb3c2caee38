"""`sampan export`: a container's file system as a tar."""

from __future__ import annotations

import os

from sampan.cli import archives, streams
from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (("output", "o", "string", "", "Write to a file, instead of STDOUT"),)


def run(call: Call) -> int:
    """Write the tar to standard output or to a file."""
    path = call.text("output")
    if not path and os.isatty(1):
        raise CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if path:
        archives.check_output(path, "failed to export container")
    response = call.client.open("GET", f"/containers/{quote(call.args[0])}/export")
    if path:
        archives.write_file(path, response.chunks(), "failed to export container")
    else:
        for chunk in response.chunks():
            streams.write_all(1, chunk)
    return 0
