"""exit.json: how a container ended, on disk before anybody is told."""

from __future__ import annotations

import json
import os

from sampan.shim.protocol import ExitStatus

FILE_NAME = "exit.json"


def write(directory: str, status: ExitStatus) -> None:
    """Put the record in place in one step.

    Not synced: after a crash of the machine the container is dead whatever the file says.
    """
    path = f"{directory}/{FILE_NAME}"
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(status.to_dict()).encode())
    finally:
        os.close(fd)
    os.rename(temporary, path)


def read(directory: str) -> ExitStatus | None:
    """The record of the last run; None when it did not end (or nobody saw it end)."""
    try:
        with open(f"{directory}/{FILE_NAME}", "rb") as file:
            return ExitStatus.from_dict(json.loads(file.read()))
    except FileNotFoundError:
        return None


def remove(directory: str) -> None:
    """Forget the last run; a new one begins."""
    try:
        os.unlink(f"{directory}/{FILE_NAME}")
    except FileNotFoundError:
        pass
