"""`sampan import`: an image from the tar of a root file system."""

from __future__ import annotations

from sampan.cli import archives, progress, references
from sampan.cli.client import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.cli.call import Call

FLAGS = (
    ("change", "c", "list", "", "Apply Dockerfile instruction to the created image"),
    ("message", "m", "string", "", "Set commit message for imported image"),
    ("platform", "", "string", "", "Set platform if server is multi-platform capable"),
)


def run(call: Call) -> int:
    """Import an image and print its ID."""
    source = call.args[0]
    reference = call.args[1] if len(call.args) > 1 else ""
    if reference:
        references.split(reference)
    remote = source.startswith(("http://", "https://"))
    values = query(
        fromSrc=source if remote else "-",
        repo=reference,
        message=call.text("message"),
        platform=call.text("platform"),
    )
    values += "".join(f"&changes={quote(change)}" for change in call.items("change"))
    body: Iterator[bytes] | None = None
    if not remote:
        body = archives.blocks(0 if source == "-" else archives.open_input(source))
    response = call.client.open("POST", f"/images/create{values}", body, content_type="text/plain")
    progress.show(response.values(), fd=1)
    return 0
