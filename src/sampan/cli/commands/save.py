"""`sampan save`: images as an archive."""

from __future__ import annotations

import os

from sampan.cli import archives, streams
from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("output", "o", "string", "", "Write to a file, instead of STDOUT"),
    ("platform", "", "string", "", ""),
)


def run(call: Call) -> int:
    """Write images to standard output or to a file."""
    path = call.text("output")
    if not path and os.isatty(1):
        raise CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    names = "&".join(f"names={quote(name)}" for name in call.args)
    response = call.client.open("GET", f"/images/get?{names}")
    if path:
        archives.write_file(path, response.chunks())
    else:
        for chunk in response.chunks():
            streams.write_all(1, chunk)
    return 0
