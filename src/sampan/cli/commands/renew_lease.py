"""`sampan lease renew`: let leases live on."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """Renew them; one that is gone is told, and the others are renewed."""
    return for_each(call, "POST", lambda name: f"/leases/{quote(name)}/renew")
