"""`sampan wait`: the exit codes, as containers stop."""

from __future__ import annotations

from sampan.cli import jsontext
from sampan.cli.client import quote
from sampan.cli.listed import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def _code(name: str, answer: bytes) -> str:
    return str(jsontext.decode(answer.decode())["StatusCode"])


def run(call: Call) -> int:
    """Wait for containers, all at once; the codes come in the order of the arguments."""
    return for_each(call, "POST", lambda name: f"/containers/{quote(name)}/wait", done=_code)
