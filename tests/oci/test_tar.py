"""The tar parser reads what the world's writers make, and refuses what is damaged."""

import io
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from sampan.oci import tar, tar_writer
from sampan.oci.tar import BadArchive, TarReader
from support.tars import archive, directory, entry, file, reader


def read_all(data: bytes, step: int = 1 << 20) -> dict[str, tuple[bytes, bytes]]:
    found = {}
    tar_reader = TarReader(reader(data, step))
    for item in tar_reader:
        found[item.text_name] = (item.kind, b"".join(tar_reader.data()))
    return found


@pytest.mark.parametrize("step", [1, 7, 512, 1 << 20])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats_of_pythons_writer(form: int, step: int) -> None:
    names = ["a", "d/" + "n" * 90, "ä/ö"]
    if form != tarfile.USTAR_FORMAT:
        names += ["long/" * 60 + "name"]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as writer:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 600
            info.uid = 3_000_000 if form != tarfile.USTAR_FORMAT else 5
            writer.addfile(info, io.BytesIO(b"z" * 600))
    assert read_all(stream.getvalue(), step) == dict.fromkeys(names, (tar.FILE, b"z" * 600))


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], ["--format=pax"], ["--format=v7"], ["--format=oldgnu"]]
    + [["--sparse", "--format=gnu"]]
    + [["--sparse", "--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")],
    ids=" ".join,
)
def test_formats_of_gnu_tar(tmp_path: Path, options: list[str]) -> None:
    """Contents, holes and all, are those of the file."""
    source = tmp_path / "holes"
    with source.open("wb") as hole:
        for number in range(12):
            hole.seek(number * 1_000_000)
            hole.write(bytes([number + 1]) * 5000)
        hole.truncate(20_000_000)
    out = subprocess.run(
        ["tar", "-C", tmp_path, *options, "-cf", "-", "holes"], check=True, capture_output=True
    ).stdout
    tar_reader = TarReader(reader(out))
    item = tar_reader.next()
    assert item is not None and item.text_name == "holes" and item.size == 20_000_000
    stored = b"".join(tar_reader.data())
    if item.segments is None:
        assert stored == source.read_bytes()
    else:
        image = bytearray(item.size)
        for offset, length in item.segments:
            image[offset : offset + length] = stored[:length]
            stored = stored[length:]
        assert image == source.read_bytes() and not stored
    assert tar_reader.next() is None


def test_own_headers_are_read_by_gnu_tar_and_by_ourselves(tmp_path: Path) -> None:
    data = archive(
        [
            directory("d"),
            file("d/" + "n" * 200, b"hello", uid=5_000_000, mtime_ns=10**18),
            file("attributes", b"1", xattrs={b"user.a": b"\n=\0"}),
        ]
    )
    listing = subprocess.run(
        ["tar", "--numeric-owner", "-tvf", "-"], input=data, check=True, capture_output=True
    ).stdout.decode()
    assert "5000000/0" in listing and "n" * 200 in listing
    items = list(TarReader(reader(data)))
    assert [item.uid for item in items] == [0, 5_000_000, 0]
    assert items[2].xattrs == {b"user.a": b"\n=\0"}


def test_extremes_of_numbers() -> None:
    for size in (0, 1, 8**11 - 1, 8**11, 1 << 62):
        head = tar_writer.header(entry("f", size=size))
        item = TarReader(reader(head)).next()
        assert item is not None and item.size == size


def test_members_that_nobody_reads_are_skipped() -> None:
    data = archive([file("a", b"1" * 5000), file("b", b"2")])
    assert [item.text_name for item in TarReader(reader(data, 100))] == ["a", "b"]


def test_read_data_has_a_limit() -> None:
    tar_reader = TarReader(reader(archive([file("a", b"1" * 100)])))
    tar_reader.next()
    with pytest.raises(BadArchive, match="100 bytes, 99 are allowed"):
        tar_reader.read_data(99)


def _broken(position: int, value: bytes, *, checksum: bool = True) -> bytes:
    block = bytearray(file("name", b"data")[:512])
    block[position : position + len(value)] = value
    if checksum:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"data".ljust(512, b"\0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"this is no archive at all".ljust(1024, b"!"), "invalid tar header"),
        (b"short", "unexpected EOF"),
        (_broken(0, b"other", checksum=False), "invalid tar header"),
        (_broken(124, b"zzzz"), "invalid tar header"),
        (_broken(124, b"\xff" * 12), "invalid tar header"),
        (_broken(124, b"77777777777\0"), "unexpected EOF"),
        (_broken(156, b"V"), "unhandled tar header type"),
        (file("a", b"x" * 1000)[:700], "unexpected EOF"),
        (tar_writer.header(entry("x", tar.PAX_HEADER, size=0))[:-1], "unexpected EOF"),
    ],
)
def test_damaged(data: bytes, message: str) -> None:
    with pytest.raises(BadArchive, match=message):
        read_all(data)


@pytest.mark.parametrize(
    "record",
    [b"", b"x", b"999 a=b\n", b"6 a=bc", b"-1 a=b\n", b"7 abcd\n", b"0 \n", b" 6 a=b\n"],
)
def test_damaged_pax_records(record: bytes) -> None:
    body = record or b"\n"
    extended = entry("x", tar.PAX_HEADER, size=len(body))
    head = tar_writer._ustar(extended, tar.PAX_HEADER)
    with pytest.raises(BadArchive):
        read_all(head + body + tar_writer.padding(len(body)) + file("a"))


def test_huge_extended_header_is_refused_before_it_is_read() -> None:
    head = tar_writer._ustar(entry("x", tar.PAX_HEADER, size=1 << 30), tar.PAX_HEADER)
    with pytest.raises(BadArchive, match="header field too long"):
        read_all(head)


@pytest.mark.parametrize("size", [b"-0000001000\0", b"\xff" * 10 + b"\xfe\0"])
@pytest.mark.parametrize("kind", [tar.PAX_HEADER, b"g", b"L", b"K"])
def test_negative_extended_header(kind: bytes, size: bytes) -> None:
    """It sent the reader back to the same header, without end."""
    data = bytearray(_broken(124, size)[:512])
    data[156:157] = kind
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    with pytest.raises(BadArchive, match="invalid tar header"):
        read_all(bytes(data) + bytes(1024))


def test_endless_sparse_map() -> None:
    """Pieces of no length compress to nothing and fill the memory."""
    data = bytearray(_broken(482, b"\1")[:512])
    data[124:136] = data[483:495] = b"00000000000\0"
    data[156:157] = b"S"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    extension = b"00000000000\0" * 42 + b"\1" + bytes(7)
    with pytest.raises(BadArchive, match="sparse map too long"):
        read_all(bytes(data) + extension * 4000)


def test_random_damage_raises_nothing_but_bad_archive() -> None:
    """Bytes are flipped at random: every outcome is entries or BadArchive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for name in ("a", "b" * 150):
            info = tarfile.TarInfo(name)
            info.size = 10
            info.mtime = 1.5
            writer.addfile(info, io.BytesIO(b"0123456789"))
    good = stream.getvalue()[:4096]
    source = random.Random(7)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(source.randrange(1, 5)):
            at = source.randrange(len(data))
            data[at] = source.randrange(256)
        for start in range(0, len(data), 512):  # let damage get past the checksum
            if any(data[start : start + 512]):
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        try:
            read_all(bytes(data))
        except BadArchive:
            pass
