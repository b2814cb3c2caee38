"""`sampan image pin`: the disk budget leaves these images alone."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """Pin each image."""
    return for_each(call, "POST", lambda name: f"/images/{quote(name)}/pin")
