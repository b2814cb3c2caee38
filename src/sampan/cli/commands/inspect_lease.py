"""`sampan lease inspect`."""

from __future__ import annotations

from sampan.cli import inspection
from sampan.cli.client import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (inspection.FORMAT,)


def run(call: Call) -> int:
    """Inspect leases."""
    return inspection.show(call, lambda name: call.client.call("GET", f"/leases/{quote(name)}"))
