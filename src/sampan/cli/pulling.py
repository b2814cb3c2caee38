"""Fetching an image through the engine: for `pull`, and for `run` and `create` of one that is not there."""

from __future__ import annotations

from sampan.cli import progress
from sampan.cli.client import query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call


def fetch(call: Call, repository: str, wanted: str, *, platform: str, fd: int, quiet: bool) -> None:
    """Have the engine pull a tag or digest, or all tags where `wanted` is empty; progress on `fd`.

    Raises:
        CommandError: the engine's refusal.
    """
    import sys

    from sampan.cli.credentials import registry_auth_header

    sys.stdout.flush()
    values = query(fromImage=repository, tag=wanted, platform=platform)
    response = call.client.open(
        "POST", f"/images/create{values}", extra=auth_line(registry_auth_header(repository))
    )
    progress.show(response.values(), fd=fd, quiet=quiet)


def platform_of(call: Call) -> str:
    """The platform that was asked for, by `--platform` or as a rule by DOCKER_DEFAULT_PLATFORM."""
    return call.text("platform") or call.environ.get("DOCKER_DEFAULT_PLATFORM", "")


def auth_line(value: str) -> str:
    """The header line of a request that a registry's credentials go with; "" without any."""
    return f"X-Registry-Auth: {value}\r\n" if value else ""
