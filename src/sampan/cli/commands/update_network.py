"""`sampan network update`: another egress policy for networks, also while containers are in them."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    (
        "network-policy",
        "",
        "string",
        "",
        "What its containers may reach: none, full or allow:NAME|SUBNET[:PORT],...",
    ),
)


def run(call: Call) -> int:
    """Change them one after the other; the names of those that were are told."""
    policy = call.text("network-policy")
    if not policy:
        raise CommandError("nothing to change: --network-policy is all that can be")
    failures = 0
    for name in call.args:
        try:
            call.client.call("POST", f"/networks/{quote(name)}/update", {"NetworkPolicy": policy})
        except ApiError as error:
            call.complain(error.message)
            failures += 1
        else:
            call.say(name)
    return 1 if failures else 0
