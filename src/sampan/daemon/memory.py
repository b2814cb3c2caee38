"""The C library's allocator, told that this process is to stay small."""

from __future__ import annotations

import ctypes

# malloc.h of glibc; see mallopt(3).
M_TRIM_THRESHOLD = -1
M_ARENA_MAX = -8

TRIM_THRESHOLD_BYTES = 64 << 10


def stay_small() -> None:
    """Give freed memory back to the kernel early, and have one arena for all threads.

    Work for images runs in threads, one piece at a time, and an arena of each would keep what it
    once needed. A C library without mallopt(3) is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
