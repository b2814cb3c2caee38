"""Blocks of a file before it is written: fallocate(2)."""

from __future__ import annotations

import ctypes

from sampan.linux.syscalls import check, libc

FALLOC_FL_KEEP_SIZE = 0x01  # linux/falloc.h


def reserve(fd: int, size_bytes: int) -> None:
    """Give a file the blocks for its first `size_bytes`; its length stays as it is.

    Raises:
        OSError: ENOSPC, EDQUOT; EOPNOTSUPP where the file system cannot.
    """
    zero, size = ctypes.c_long(0), ctypes.c_long(size_bytes)
    check(libc.fallocate(fd, FALLOC_FL_KEEP_SIZE, zero, size), "fallocate")
