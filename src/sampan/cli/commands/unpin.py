"""`sampan image unpin`: the disk budget may remove these images again."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """Take the pin off each image."""
    return for_each(call, "POST", lambda name: f"/images/{quote(name)}/unpin")
