"""Zeros become holes, and the bytes stay what they were."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from sampan.oci import tar
from sampan.snapshots import file_data
from support.tars import entry

HOLE = file_data.HOLE


def written(path: Path, data: bytes, steps: random.Random) -> os.stat_result:
    """`data` written in pieces of any length, as a reader's buffer cuts them."""
    pieces, rest = [], memoryview(data)
    while rest:
        length = steps.randint(1, 3 * HOLE)
        pieces.append(rest[:length])
        rest = rest[length:]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        file_data.write(fd, entry("f", tar.FILE, size=len(data)), pieces)
        return os.fstat(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("seed", range(12))
def test_any_data_in_any_pieces(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = b"".join(
        chance.choice((bytes(length), chance.randbytes(length), b"\0x" * (length // 2)))
        for length in (chance.randint(0, 4 * HOLE) for _ in range(6))
    )
    written(tmp_path / "f", data, chance)
    assert (tmp_path / "f").read_bytes() == data


@pytest.mark.parametrize("tail", [b"", b"end", bytes(5)])
def test_zeros_take_no_room(tmp_path: Path, tail: bytes) -> None:
    data = b"head" + bytes(100 * HOLE) + tail
    found = written(tmp_path / "f", data, random.Random(len(tail)))
    assert found.st_size == len(data)
    assert found.st_blocks * 512 <= 8 * HOLE
    assert (tmp_path / "f").read_bytes() == data
