"""`sampan logs`: what a container printed."""

from __future__ import annotations

from sampan.cli import streams
from sampan.cli.client import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

_TIME = ' (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'

FLAGS = (
    ("details", "", "bool", "", "Show extra details provided to logs"),
    ("follow", "f", "bool", "", "Follow log output"),
    ("since", "", "string", "", "Show logs since timestamp" + _TIME),
    ("tail", "n", "string", '"all"', "Number of lines to show from the end of the logs"),
    ("timestamps", "t", "bool", "", "Show timestamps"),
    ("until", "", "string", "", "Show logs before a timestamp" + _TIME),
)


def run(call: Call) -> int:
    """Print the log; stdout and stderr go where the container sent them."""
    client = call.client
    container = client.call("GET", f"/containers/{quote(call.args[0])}/json")
    values = query(
        stdout=True,
        stderr=True,
        follow=call.on("follow"),
        timestamps=call.on("timestamps"),
        details=call.on("details"),
        since=_moment(call, "since"),
        until=_moment(call, "until"),
        tail=call.text("tail"),
    )
    response = client.open("GET", f"/containers/{container['Id']}/logs{values}")
    streams.copy_out(response.chunks(), raw=container["Config"]["Tty"])
    return 0


def _moment(call: Call, flag: str) -> str:
    if not call.text(flag):
        return ""
    from sampan.cli import moments

    return moments.api_time(call.text(flag), f'invalid value for "{flag}"')
