"""`sampan top`: the processes of a container, as the host's ps shows them."""

from __future__ import annotations

import sys

from sampan.cli import tabular
from sampan.cli.client import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()
COLUMN_WIDTH = 20


def run(call: Call) -> int:
    """List the processes."""
    values = query(ps_args=" ".join(call.args[1:]))
    answer = call.client.call("GET", f"/containers/{quote(call.args[0])}/top{values}")
    lines = [answer["Titles"], *(answer["Processes"] or ())]
    sys.stdout.write(tabular.align(lines, minimum=COLUMN_WIDTH))
    return 0
