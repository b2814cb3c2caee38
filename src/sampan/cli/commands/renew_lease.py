"""`sampan lease renew`: let leases live on."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """Renew them; one that is gone is told, and the others are renewed."""
    failures = []
    for name in call.args:
        try:
            call.client.call("POST", f"/leases/{quote(name)}/renew")
        except CommandError as error:
            failures.append(error.message)
        else:
            call.say(name)
    for failure in failures:
        call.complain(failure)
    return 1 if failures else 0
