"""Pseudoterminals: a pair from a given devpts, the controlling terminal, the window size."""

from __future__ import annotations

import fcntl
import os
import struct

from sampan.linux import rooted
from sampan.linux import syscalls as sys

# asm-generic/ioctls.h
TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441

_PTMX = (5, 2)


def open_pair(root_fd: int = -1) -> tuple[int, int]:
    """(master, slave) from the devpts of the root file system at `root_fd` (-1: the machine's).

    The slave is opened through the master, so no path of a hostile /dev/pts is followed.

    Raises:
        OSError: ENOENT without a devpts, ENOSPC when its `max` is reached, ENOTTY if the file
            in /dev/pts/ptmx or /dev/ptmx is something else.
    """
    master = _open_ptmx(root_fd)
    try:
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
    return master, slave


def _open_ptmx(root_fd: int) -> int:
    flags = os.O_RDWR | os.O_NOCTTY
    if root_fd < 0:
        return os.open("/dev/ptmx", flags | os.O_CLOEXEC)
    try:
        master = rooted.open_inside(root_fd, "/dev/pts/ptmx", flags)
    except FileNotFoundError:
        master = rooted.open_inside(root_fd, "/dev/ptmx", flags)
    if not rooted.is_device(master, *_PTMX):
        os.close(master)
        raise OSError(25, "not a pseudoterminal multiplexer", "/dev/pts/ptmx")
    return master


def resize(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(fd, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def size(fd: int) -> tuple[int, int]:
    """(rows, columns) of a terminal."""
    packed = fcntl.ioctl(fd, TIOCGWINSZ, bytes(8))
    rows, columns, _, _ = struct.unpack("HHHH", packed)
    return rows, columns


def make_controlling(fd: int) -> None:
    """Make a terminal the controlling one of this session, whose leader the caller is."""
    fcntl.ioctl(fd, TIOCSCTTY, 0)


def bind(slave: int, target_fd: int) -> None:
    """Attach a pty's slave over the file of `target_fd`, as /dev/console is made."""
    tree = sys.open_tree(slave, b"", sys.OPEN_TREE_CLONE)
    try:
        sys.move_mount(tree, target_fd)
    finally:
        os.close(tree)
