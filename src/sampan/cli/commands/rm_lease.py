"""`sampan lease rm`: end leases, and with them all that was made under them."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """End them; back when everything is gone."""
    return for_each(call, "DELETE", lambda name: f"/leases/{quote(name)}")
