"""What all prunes share: the question before, the request, and what was removed."""

from __future__ import annotations

import os
import sys

from sampan.cli import units
from sampan.cli.client import query
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
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


def prune(call: Call, path: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Have the engine prune what these filters leave; its report."""
    report: dict[str, Any] = call.client.call("POST", f"{path}{query(filters=filters_json(pairs))}")
    return report


def deleted(call: Call, kind: str, names: Sequence[str]) -> None:
    """Say what was deleted, under a heading; nothing for nothing."""
    if names:
        call.say(f"Deleted {kind}:")
        for name in names:
            call.say(name)
        call.say("")


def reclaimed(call: Call, report: dict[str, Any]) -> None:
    """The sum of what was freed."""
    call.say(f"Total reclaimed space: {units.human_size(report.get('SpaceReclaimed') or 0)}")
