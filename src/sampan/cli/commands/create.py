"""`sampan create`: a container that is not started yet."""

from __future__ import annotations

from sampan.cli import create_container, create_request, process
from sampan.cli.create_flags import FLAGS as CONTAINER_FLAGS
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (*CONTAINER_FLAGS, ("use-api-socket", "", "bool", "", ""))


def run(call: Call) -> int:
    """Create a container and print its ID."""
    try:
        create_container.check(call)
        body = create_request.body(call, detach=False)
    except CommandError as error:
        raise process.as_run_failure(error, 125) from None
    try:
        call.say(create_container.create(call, body))
    except CommandError as error:
        raise process.as_run_failure(error, 1) from None
    return 0
