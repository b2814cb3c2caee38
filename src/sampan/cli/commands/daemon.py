"""`sampan daemon`: the engine itself, the same as sampand."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def forward(arguments: list[str]) -> int:
    """Become the daemon, with its own command line."""
    from sampan.cli.autostart import daemon_argv

    argv = daemon_argv(arguments)
    sys.stdout.flush()
    os.execv(argv[0], argv)


def run(call: Call) -> int:
    """Run the daemon."""
    return forward(call.args)
