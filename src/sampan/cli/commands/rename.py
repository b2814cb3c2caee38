"""`sampan rename`: give a container another name."""

from __future__ import annotations

from sampan.cli.client import query, quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """Rename a container."""
    old, new = (name.strip() for name in call.args)
    if not old or not new:
        raise CommandError("Error: Neither old nor new names may be empty")
    call.client.call("POST", f"/containers/{quote(old)}/rename{query(name=new)}")
    return 0
