"""`sampan container inspect`."""

from __future__ import annotations

from sampan.cli import inspection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (inspection.FORMAT, ("size", "s", "bool", "", "Display total file sizes"))


def run(call: Call) -> int:
    """Inspect containers."""
    return inspection.show(
        call, lambda name: inspection.container(call, name, size=call.on("size"))
    )
