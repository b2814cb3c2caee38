"""`sampan lease rm`: end leases, and with them all that was made under them."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """End them; back when everything is gone."""
    failures = []
    for name in call.args:
        try:
            call.client.call("DELETE", f"/leases/{quote(name)}")
        except CommandError as error:
            failures.append(error.message)
        else:
            call.say(name)
    for failure in failures:
        call.complain(failure)
    return 1 if failures else 0
