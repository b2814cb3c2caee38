"""`sampan image inspect`."""

from __future__ import annotations

from sampan.cli import inspection, platforms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    inspection.FORMAT,
    ("platform", "", "string", "", "Inspect a platform of the image: os[/arch[/variant]]"),
)


def run(call: Call) -> int:
    """Inspect images."""
    platform = platforms.as_json(call.text("platform"))
    return inspection.show(call, lambda name: inspection.image(call, name, platform))
