"""`sampan volume inspect`."""

from __future__ import annotations

from sampan.cli import inspection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (inspection.FORMAT,)


def run(call: Call) -> int:
    """Inspect volumes."""
    return inspection.show(call, lambda name: inspection.volume(call, name))
