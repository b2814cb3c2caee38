"""What a full or broken disk is called: the thing that could not be stored, and why."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sampan.errors import Unavailable

_OF_THE_DISK = frozenset((errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS))


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Say what could not be stored when the disk is full, over quota, read-only or broken.

    Raises:
        Unavailable: `failed to store layer 0123456789ab: no space left on device`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        cause = (error.strerror or str(error)).lower()
        raise Unavailable(f"failed to store {what}: {cause}") from error
