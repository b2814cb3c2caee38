"""`sampan load`: images from an archive."""

from __future__ import annotations

import os

from sampan.cli import archives, progress
from sampan.cli.client import query
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("input", "i", "string", "", "Read from tar archive file, instead of STDIN"),
    ("platform", "", "string", "", ""),
    ("quiet", "q", "bool", "", "Suppress the load output"),
)


def run(call: Call) -> int:
    """Load images and print their names."""
    path = call.text("input")
    if not path and os.isatty(0):
        raise CommandError("requested load from stdin, but stdin is empty")
    fd = archives.open_input(path) if path else 0
    quiet = call.on("quiet") or not os.isatty(1)
    response = call.client.open(
        "POST",
        f"/images/load{query(quiet='1' if quiet else '0')}",
        archives.blocks(fd),
        content_type="application/x-tar",
    )
    if "json" in response.headers.get("content-type", ""):
        progress.show(response.values(), fd=1)
    else:
        for chunk in response.chunks():
            os.write(1, chunk)
    return 0
