"""The tar reader and writer with what nobody wrote on purpose (SAMPAN_FUZZ=100000 for a long run)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from sampan.content.compression import BadCompression, decompressed
from sampan.oci import tar, tar_writer
from sampan.oci.tar import BadArchive, TarReader
from support.fuzzing import damaged_archives, fuzzed
from support.tars import reader

KINDS = [tar.FILE, tar.HARD_LINK, tar.SYMLINK, tar.CHARACTER, tar.BLOCK_DEVICE, tar.DIRECTORY, tar.FIFO]  # fmt: skip
ENOUGH = 1 << 22
"""A damaged frame may be a bomb: how much it gives is not bounded, how much at once is."""


def read_through(data: bytes, step: int) -> None:
    """Read everything; nothing but BadArchive may come of it, and no more data than there is."""
    tar_reader = TarReader(reader(data, step))
    handed_out = 0
    for item in tar_reader:
        assert item.size >= 0 and item.stored_size >= 0
        assert isinstance(item.name, bytes) and item.kind in KINDS
        handed_out += sum(len(piece) for piece in tar_reader.data())
        assert handed_out <= len(data)


@fuzzed(400)
@given(data=damaged_archives(), step=st.sampled_from([1, 3, 100, 512, 513, 1 << 20]))
def test_damaged_archives(data: bytes, step: int) -> None:
    try:
        read_through(data, step)
    except BadArchive:
        pass


@fuzzed(300)
@given(data=st.binary(max_size=3000), step=st.sampled_from([1, 512, 1 << 20]))
def test_any_bytes(data: bytes, step: int) -> None:
    try:
        read_through(data, step)
    except BadArchive:
        pass


@fuzzed(500)
@given(st.one_of(st.binary(max_size=300), st.text(alphabet="0123456789 =\n-.pathGNU", max_size=100).map(str.encode)))  # fmt: skip
def test_extended_headers(data: bytes) -> None:
    try:
        tar.parse_pax(data)
    except BadArchive:
        pass


_names = st.binary(min_size=1, max_size=400).filter(lambda name: b"\0" not in name)
_ids = st.one_of(st.integers(0, 70_000), st.integers(0, 0xFFFFFFFF))
_times = st.one_of(st.integers(-(10**19), 10**19), st.integers(-3 * 10**9, 3 * 10**9))


@st.composite
def entries(draw: st.DrawFn) -> tar.Entry:
    made = tar.Entry(draw(_names), draw(st.sampled_from(KINDS)))
    made.mode = draw(st.integers(0, 0o7777))
    made.uid, made.gid = draw(_ids), draw(_ids)
    made.mtime_ns = draw(_times)
    if made.kind in (tar.SYMLINK, tar.HARD_LINK):
        made.link = draw(_names)
    if made.kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
        made.major, made.minor = draw(st.integers(0, 4095)), draw(st.integers(0, 0xFFFFF))
    if made.kind == tar.FILE:
        made.size = draw(st.integers(0, 2000))
        if made.name.endswith(b"/"):
            made.name += b"f"
    keys = st.sampled_from([b"user.a", b"security.capability", b"user.\xff"])
    made.xattrs = draw(st.dictionaries(keys, st.binary(max_size=600), max_size=3))
    return made


@fuzzed(120)
@given(st.lists(entries(), max_size=5))
def test_what_is_written_is_read(wanted: list[tar.Entry]) -> None:
    """Every field, whatever it is; and Python's reader agrees about the names."""
    parts = []
    for item in wanted:
        parts.append(tar_writer.header(item) + bytes(item.size) + tar_writer.padding(item.size))
    data = b"".join(parts) + tar_writer.END
    found = list(TarReader(reader(data)))
    fields = ("name", "kind", "mode", "uid", "gid", "size", "mtime_ns", "link", "major", "minor", "xattrs")  # fmt: skip
    assert [[getattr(item, field) for field in fields] for item in found] == [
        [getattr(item, field) for field in fields] for item in wanted
    ]
    with tarfile.open(
        fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf-8"
    ) as python:
        assert [member.size for member in python] == [item.size for item in wanted]


_PLAIN = bytes(range(256)) * 40
_COMPRESSED = [
    gzip.compress(_PLAIN), gzip.compress(b"") * 5 + gzip.compress(_PLAIN), zstd.compress(_PLAIN), lzma.compress(_PLAIN),
    bz2.compress(_PLAIN), b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd.compress(_PLAIN),
]  # fmt: skip


@fuzzed(500)
@given(
    data=st.sampled_from(_COMPRESSED),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    length=st.one_of(st.none(), st.integers(0, 2000)),
    step=st.sampled_from([1, 5, 1000]),
)
def test_damaged_compression(
    data: bytes, changes: list[tuple[int, int]], length: int | None, step: int
) -> None:
    damaged = bytearray(data)
    for at, byte in changes:
        damaged[at % len(damaged)] = byte
    try:
        read, _ = decompressed(reader(bytes(damaged[:length]), step))
        total = 0
        while total < ENOUGH and (piece := read(4096)):
            assert len(piece) <= 4096
            total += len(piece)
    except BadCompression:
        pass
