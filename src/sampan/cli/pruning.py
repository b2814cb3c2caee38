"""The question before things are removed, and the sum after it."""

from __future__ import annotations

import os
import sys

from sampan.cli import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call


def confirmed(warning: str) -> bool:
    """Whether the user answers the question with y."""
    sys.stdout.write(f"{warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    answer = b""
    while not answer.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            break
        answer += data
    return answer.strip().lower() == b"y"


def reclaimed(call: Call, report: dict[str, Any]) -> None:
    """The sum of what was freed."""
    call.say(f"Total reclaimed space: {units.human_size(report.get('SpaceReclaimed') or 0)}")
