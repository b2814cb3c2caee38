"""A cgroup of its own, in the v2 tree, for one process and all that comes of it.

Nothing is limited there; it is a list that nobody gets off by forking, a session of its own or another
parent. It is below the container's cgroup and goes with that at the latest.
"""

from __future__ import annotations

import os
import time

from sampan.linux.cgroups import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.linux.cgroups.base import Cgroup

_END_S = 10.0
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Leaf:
    """The leaf `name` below a cgroup; there is none on a machine without a v2 tree."""

    __slots__ = ("directory", "name")

    def __init__(self, cgroup: Cgroup, name: str) -> None:
        above = cgroup.paths().get("")
        self.name = name
        self.directory = f"{above}/{name}" if above and name else ""

    def make(self, above: int) -> int:
        """Make it below the directory `above`, which is closed; an fd to clone into.

        Where it cannot be made (a limit of cgroups) that is `above` itself.
        """
        try:
            os.mkdir(self.name, 0o755, dir_fd=above)
        except FileExistsError:
            pass
        except OSError:
            return above
        try:
            return os.open(self.name, _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)

    def kill(self) -> None:
        """Kill all that is in it, where the kernel has a word for that (Linux 5.14)."""
        if not self.directory:
            return
        try:
            fd = os.open(f"{self.directory}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)

    def await_end(self) -> None:
        """Wait until nothing of it is left, but not for ever: one that hangs in the kernel may."""
        if self.directory and os.path.isdir(self.directory):
            tree.wait_event(self.directory, "populated", "0", time.monotonic() + _END_S)

    def remove(self) -> None:
        """Drop it, unless something is in it still."""
        if self.directory:
            try:
                os.rmdir(self.directory)
            except OSError:
                return
