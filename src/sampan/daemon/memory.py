"""The C library's allocator, told that this process is to stay small."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8  # malloc.h of glibc; see mallopt(3)


def share_one_arena() -> None:
    """Have one arena for all threads.

    Work for images runs in threads, and an arena of each would keep what it once needed. The trim
    threshold is left alone: set, it has every large buffer mapped anew, and reading a log takes
    twice as long. A C library without mallopt(3) is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
