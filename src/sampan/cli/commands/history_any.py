"""`sampan history`: of the image with that name; where there is none, of the container."""

from __future__ import annotations

from sampan.cli.commands import history
from sampan.cli.failures import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    *history.FLAGS,
    ("last", "n", "int", "0", "Show the last n runs of a container (default all)"),
)


def run(call: Call) -> int:
    """An image's history is docker's, so an image comes first; `container history` is unambiguous."""
    try:
        return history.run(call)
    except ApiError as no_image:
        if no_image.code != 404 or call.text("platform"):
            raise
        from sampan.cli.commands import history_container

        try:
            return history_container.run(call)
        except ApiError as failure:
            if failure.code == 404:
                raise no_image from None
            raise
