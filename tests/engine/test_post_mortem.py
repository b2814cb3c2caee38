"""The cause of an end in words."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.engine.post_mortem import Record, SentSignal, cause
from sampan.engine.requester import Requester
from sampan.linux.kernel_log import OutOfMemory

ME = Requester(uid=5, gid=5, pid=77)
KILL = OutOfMemory("tail", 9, 0, "/s/aa", "/s/aa", 20 << 20)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "exited with code 0"),
        ({"exit_code": 3}, "exited with code 3"),
        ({"exit_code": 137, "signal": 9}, "killed by SIGKILL"),
        ({"exit_code": 130, "signal": 66}, "killed by signal 66"),
        ({"exit_code": 137}, "exited with code 137"),
        (
            {"exit_code": 137, "signal": 9, "sent": SentSignal(9, ME)},
            "killed by SIGKILL, sent by uid 5, pid 77",
        ),
        (
            {"exit_code": 139, "signal": 11, "sent": SentSignal(15, ME)},
            "killed by SIGSEGV",
        ),
        (
            {"exit_code": 0, "sent": SentSignal(15)},
            "exited with code 0 after SIGTERM, sent by the engine",
        ),
        (
            {"signal": 9, "oom_killed": True, "memory_limit_bytes": 64 << 20},
            "out of memory: the kernel killed a process; the container's limit was 64 MiB",
        ),
        (
            {"signal": 9, "oom_killed": True, "killed": [KILL]},
            "out of memory: the kernel killed tail (pid 9); the container's limit is 20 MiB",
        ),
        (
            {
                "exit_code": 5,
                "oom_killed": True,
                "killed": [OutOfMemory("tail", 9, 0, "/s/aa", "/s", 1 << 30)],
            },
            (
                "exited with code 5; out of memory: the kernel killed tail (pid 9); the limit of "
                "the cgroup /s is 1024 MiB"
            ),
        ),
        (
            {"signal": 9, "oom_killed": True, "killed": [OutOfMemory("x", 9, 0, "/s/aa", "")]},
            "out of memory: the kernel killed x (pid 9); the machine had no memory left",
        ),
        ({"error": "the shim died"}, "the shim died"),
        ({"started_ns": 0, "error": "exec: no"}, "did not start: exec: no"),
    ],
)
def test_cause(values: dict[str, Any], text: str) -> None:
    common: dict[str, Any] = {
        "id": "aa",
        "name": "n",
        "image": "i",
        "image_id": "",
        "command": "",
        "started_ns": 1,
        "finished_ns": 2,
        "exit_code": 0,
    }
    assert cause(Record(**{**common, **values})) == text
