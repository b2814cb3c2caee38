"""A note in a container's directory that the engine has paused it for itself, for a `commit`.

The daemon may be killed before it lets the container go on. The next one finds the note and does it; a
container that a user paused has none, and stays paused.
"""

from __future__ import annotations

import os

from sampan.engine.container import Container

_NAME = "held-still"


def note(container: Container) -> None:
    """Say that the container is about to be paused, and by whom.

    Raises:
        OSError: of the disk.
    """
    os.close(os.open(_path(container), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def forget(container: Container) -> bool:
    """Take the note back; whether there was one."""
    try:
        os.unlink(_path(container))
    except FileNotFoundError:
        return False
    return True


def _path(container: Container) -> str:
    return f"{container.directory}/{_NAME}"
