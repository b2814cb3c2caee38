"""What a start that failed is told as: its exit code, and advice where the kernel says little."""

from __future__ import annotations

import errno

from sampan.errors import RuntimeFailure, SampanError

COMMAND_NOT_FOUND = 127
COMMAND_NOT_EXECUTABLE = 126
START_FAILED = 128


def exit_code_of(failure: SampanError) -> int:
    """The exit code of a container that did not start, as a shell counts."""
    number = failure.errno if isinstance(failure, RuntimeFailure) else None
    if isinstance(failure, RuntimeFailure) and failure.stage == "exec":
        if number in (errno.ENOENT, errno.ENOTDIR):
            return COMMAND_NOT_FOUND
        return COMMAND_NOT_EXECUTABLE
    return START_FAILED


def explain(failure: SampanError) -> None:
    """Add dockerd's advice to the kernel's terse word for a file in a directory's place."""
    if not isinstance(failure, RuntimeFailure) or not failure.stage.startswith("mount"):
        return
    if failure.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        failure.hint = failure.hint or (
            "Are you trying to mount a directory onto a file (or vice-versa)? Check if the "
            "specified host path exists and is the expected type"
        )
