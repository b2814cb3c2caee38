"""`sampan tag`: a further name for an image."""

from __future__ import annotations

from sampan.cli.client import query, quote
from sampan.cli.references import check_source, repository_and_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """Tag an image."""
    source, target = call.args
    check_source(source)
    repository, tag = repository_and_tag(target)
    call.client.call("POST", f"/images/{quote(source)}/tag{query(repo=repository, tag=tag)}")
    return 0
