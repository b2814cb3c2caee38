"""`sampan rmi`: take names off images, and remove those that have none left."""

from __future__ import annotations

from sampan.cli.client import query, quote
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("force", "f", "bool", "", "Force removal of the image"),
    ("no-prune", "", "bool", "", "Do not delete untagged parents"),
)


def run(call: Call) -> int:
    """Remove images one after the other: one may be the parent of the next."""
    values = query(force=call.on("force"), noprune=call.on("no-prune"))
    failures: list[str] = []
    fatal = False
    for name in call.args:
        try:
            removed = call.client.call("DELETE", f"/images/{quote(name)}{values}")
        except CommandError as error:
            missing = isinstance(error, ApiError) and error.code == 404
            fatal = fatal or not missing
            failures.append(error.message)
            continue
        for item in removed or ():
            if item.get("Deleted"):
                call.say(f"Deleted: {item['Deleted']}")
            else:
                call.say(f"Untagged: {item['Untagged']}")
    for failure in failures:
        call.complain(failure)
    return 1 if failures and (fatal or not call.on("force")) else 0
