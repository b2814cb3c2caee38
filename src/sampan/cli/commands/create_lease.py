"""`sampan lease create`: make a lease, which lives until it is not renewed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (("ttl", "", "duration", "1m0s", "How long it lives after each renewal"),)


def run(call: Call) -> int:
    """Make it, and say its name."""
    body = {"Name": call.args[0], "TTL": call.number("ttl")}
    call.say(call.client.call("POST", "/leases/create", body)["Name"])
    return 0
