"""A container process's terminal: a pseudoterminal of the container's own devpts."""

from __future__ import annotations

import os

from sampan.linux import process, pty, rooted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def open_console(root_fd: int, raw: Mapping[str, Any], *, bind: bool) -> tuple[int, int]:
    """(master, slave) with the size that `process.consoleSize` asks for.

    With `bind` the slave is mounted on the container's /dev/console.
    """
    master, slave = pty.open_pair(root_fd)
    size = raw.get("consoleSize")
    if size and size.get("height") and size.get("width"):
        pty.resize(master, size["height"], size["width"])
    if bind:
        target, _ = rooted.make_file(root_fd, "/dev/console", mode=0o666)
        try:
            pty.bind(slave, target)
        finally:
            os.close(target)
    return master, slave


def use_console(slave: int, *, controlling: bool = True) -> None:
    """Make the slave this process's stdin, stdout and stderr, and the session leader's terminal."""
    if controlling:
        pty.make_controlling(slave)
    process.install_stdio((slave, slave, slave))


def own_stdio(uid: int) -> None:
    """Give stdin, stdout and stderr to the container's user, so that /dev/stdout can be opened.

    What cannot be given (another file system's rules, no mapping for the owner) stays as it is,
    and so does /dev/null, which is everybody's.
    """
    null = os.makedev(1, 3)
    for fd in (0, 1, 2):
        try:
            status = os.fstat(fd)
            if status.st_uid != uid and status.st_rdev != null:
                os.fchown(fd, uid, status.st_gid)
        except OSError:
            continue
