"""`sampan stop`: ask the processes to end, and end them after a grace period."""

from __future__ import annotations

from sampan.cli.client import query, quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("signal", "s", "string", "", "Signal to send to the container"),
    ("timeout", "t", "int", "", "Seconds to wait before killing the container"),
    ("time", "", "int", "", ""),
)


def timed(call: Call) -> str:
    """The query of `stop` and `restart`: signal and timeout, if given."""
    if {"time", "timeout"} <= call.changed:
        from sampan.cli.failures import CommandError

        raise CommandError("conflicting options: cannot specify both --timeout and --time")
    name = "time" if "time" in call.changed else "timeout"
    timeout = str(call.number(name)) if name in call.changed else None
    return query(signal=call.text("signal"), t=timeout)


def run(call: Call) -> int:
    """Stop containers."""
    values = timed(call)
    return for_each(call, "POST", lambda name: f"/containers/{quote(name)}/stop{values}")
