"""Compressed streams are recognised, decompressed in bounded pieces, and checked to their end."""

import bz2
import gzip
import lzma
import random
import sys

import pytest

from sampan.content.compression import PIECE, BadCompression, compression_of, decompressed
from support.tars import reader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODERS = {
    "gzip": lambda data: gzip.compress(data, 6),
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def plain(data: bytes, step: int = 1 << 20) -> bytes:
    read, _ = decompressed(reader(data, step))
    parts = []
    while piece := read(PIECE):
        assert len(piece) <= PIECE
        parts.append(piece)
    return b"".join(parts)


@pytest.mark.parametrize("step", [11, 4096, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, 65_536, (1 << 20) + 1])
@pytest.mark.parametrize("name", ENCODERS)
def test_round_trip(name: str, size: int, step: int) -> None:
    if step == 11 and size > 65_536:
        size = 70_000
    for data in (bytes(size), random.Random(size).randbytes(size)):
        assert plain(ENCODERS[name](data), step) == data


@pytest.mark.parametrize("name", ENCODERS)
def test_several_members_are_one_stream(name: str) -> None:
    encode = ENCODERS[name]
    assert plain(encode(b"one") + encode(b"two"), 13) == b"onetwo"


def test_what_is_not_compressed_passes_through() -> None:
    assert plain(b"hello", 2) == b"hello"
    assert plain(b"") == b""
    assert compression_of(b"hello") == ""


@pytest.mark.parametrize("name", ENCODERS)
def test_cut_and_damaged_streams_are_refused(name: str) -> None:
    data = ENCODERS[name](random.Random(1).randbytes(100_000))
    with pytest.raises(BadCompression):
        plain(data[:-12])
    if name != "zstd":  # whose frames need not have a checksum; the diff ID finds it then
        with pytest.raises(BadCompression):
            plain(data[:50_000] + bytes(2000) + data[52_000:])


def test_bomb_is_handed_out_in_pieces() -> None:
    """A gigabyte of zeros from a megabyte is read a piece at a time."""
    read, _ = decompressed(reader(gzip.compress(bytes(64 << 20))))
    assert len(read(1 << 30)) <= PIECE
