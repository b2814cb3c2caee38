"""`sampan pull`: an image from a registry."""

from __future__ import annotations

from sampan.cli import pulling, references
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("all-tags", "a", "bool", "", "Download all tagged images in the repository"),
    ("platform", "", "string", "", "Set platform if server is multi-platform capable"),
    ("quiet", "q", "bool", "", "Suppress verbose output"),
    ("disable-content-trust", "", "bool", "true", ""),
)


def run(call: Call) -> int:
    """Pull an image, or all of a repository, and print its full name."""
    repository, tag, digest = references.named(call.args[0])
    every, quiet = call.on("all-tags"), call.on("quiet")
    if every and (tag or digest):
        raise CommandError("tag can't be used with --all-tags/-a")
    if not every and not tag and not digest:
        tag = "latest"
        if not quiet:
            call.say(f"Using default tag: {tag}")
    platform = pulling.platform_of(call)
    pulling.fetch(call, repository, digest or tag, platform=platform, fd=1, quiet=quiet)
    call.say(references.full(repository, tag, digest))
    return 0
