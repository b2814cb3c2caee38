"""How much is fuzzed: the same few examples each time, or SAMPAN_FUZZ=N new ones of each kind."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from support import hostile

Test = TypeVar("Test", bound=Callable[..., object])
_MORE = int(os.environ.get("SAMPAN_FUZZ", "0"))


def fuzzed(examples: int) -> Callable[[Test], Test]:
    """Settings for a fuzz test that runs `examples` times unless SAMPAN_FUZZ says another number."""
    return settings(
        max_examples=_MORE or examples,
        derandomize=not _MORE,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@functools.cache
def _table() -> list[bytes]:
    return [data for data, _ in hostile.cases().values() if 512 <= len(data) <= 20_000]


@st.composite
def damaged_archives(draw: st.DrawFn) -> bytes:
    """An archive of the hostile table with some bytes changed, its checksums right or not."""
    data = bytearray(draw(st.sampled_from(_table())))
    for _ in range(draw(st.integers(0, 5))):
        block = 512 * draw(st.integers(0, (len(data) - 1) // 512))
        at = draw(st.one_of(st.integers(0, 511), st.sampled_from(_INTERESTING)))
        if block + at < len(data):
            piece = draw(st.one_of(st.binary(min_size=1, max_size=12), st.sampled_from(_PIECES)))
            data[block + at : block + at + len(piece)] = piece
        if draw(st.booleans()) and len(data) >= block + 512:
            data[block : block + 512] = hostile.patched(bytes(data[block : block + 512]), 0, b"")
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


# name, mode, uid, size, mtime, type, link, magic, device, prefix, sparse map, more, realsize
_INTERESTING = [0, 100, 108, 124, 136, 156, 157, 257, 329, 345, 386, 482, 483]
_PIECES = [
    b"\x80" + bytes(11), b"\xff" * 12, b"\x80" + b"\xff" * 11, b"7" * 11, b"-1\0", b"0x1\0", b" ", b"\0" * 12,
    *(bytes([kind]) for kind in b"0123456789xgLKSVZ\0"), b"../", b".wh.", b".wh..wh..opq\0", b"ustar\0",
    b"ustar  \0", b"11 path=..\n", b"GNU.sparse", b"SCHILY.xattr.",
]  # fmt: skip
