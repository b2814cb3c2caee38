"""A process's standard streams as pipes: its ends and ours."""

from __future__ import annotations

import os

from sampan.linux import mounts
from sampan.linux import syscalls as kernel

Ends = tuple[int, int, int]


def open_pipes(open_stdin: bool) -> tuple[Ends, list[int]]:
    """((stdin, stdout, stderr) of the process, [our stdin if it is open, our stdout, our stderr])."""
    ours: list[int] = []
    if open_stdin:
        child_in, our_in = os.pipe2(os.O_CLOEXEC)
        ours.append(our_in)
    else:
        child_in = _open_null(os.O_RDONLY)
    our_out, child_out = os.pipe2(os.O_CLOEXEC)
    our_err, child_err = os.pipe2(os.O_CLOEXEC)
    return (child_in, child_out, child_err), [*ours, our_out, our_err]


def open_null() -> tuple[Ends, list[int]]:
    """For a process that nobody watches."""
    null = _open_null(os.O_RDWR)
    return (null, null, null), []


_null = -1


def warm() -> None:
    """Open the machine's /dev/null through a read-only mount of its own, once for all children.

    It becomes a container's standard input, and the container's root is the owner of that file:
    through this mount it can neither change the mode nor the owner for the whole machine.
    """
    global _null
    tree = mounts.clone_tree(os.devnull, recursive=False)
    try:
        kernel.mount_setattr(
            tree, set_attributes=kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID
        )
        _null = os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(tree)


def _open_null(flags: int) -> int:
    if _null < 0:
        warm()
    return os.open(f"/proc/self/fd/{_null}", flags | os.O_CLOEXEC)
