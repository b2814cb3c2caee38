"""`sampan push`: an image, or a repository's tags, to a registry."""

from __future__ import annotations

from sampan.cli import progress, references
from sampan.cli.client import query, quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("all-tags", "a", "bool", "", "Push all tags of an image to the repository"),
    ("disable-content-trust", "", "bool", "true", ""),
    ("platform", "", "string", "", "Push only if the image is for this platform"),
    ("quiet", "q", "bool", "", "Suppress verbose output"),
)


def run(call: Call) -> int:
    """Push a tag, `latest` where none is named, or with -a all of them."""
    repository, tag, digest = references.named(call.args[0])
    every, quiet = call.on("all-tags"), call.on("quiet")
    if every and tag:
        raise CommandError("tag can't be used with --all-tags/-a")
    if digest:
        raise CommandError("cannot push a digest reference")
    if not every and not tag:
        tag = "latest"
        if not quiet:
            call.say(f"Using default tag: {tag}")
    _push(call, repository, tag, quiet=quiet)
    if quiet:
        call.say(references.full(repository, tag, ""))
    return 0


def _push(call: Call, repository: str, tag: str, *, quiet: bool) -> None:
    import sys

    from sampan.cli.credentials import registry_auth_header
    from sampan.cli.pulling import auth_line

    sys.stdout.flush()
    values = query(tag=tag, platform=call.text("platform"))
    response = call.client.open(
        "POST",
        f"/images/{quote(repository)}/push{values}",
        extra=auth_line(registry_auth_header(repository)),
    )
    progress.show(response.values(), fd=1, quiet=quiet)
