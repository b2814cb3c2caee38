"""The json-file log: what the writer writes, the reader gives back, in every shape a client asks for."""

import json
import os
import re
import struct
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.logs.drivers import open_writer
from sampan.logs.json_file import read_log
from sampan.logs.json_file_writer import PARTIAL_BYTES, JSONFileWriter
from sampan.logs.options import parse_size

TEXTS = {
    "empty lines": b"\n\n\n",
    "plain": b"hello\nworld\n",
    "no end": b"printf",
    "quotes and backslashes": b'say "hi" \\ and C:\\new\\table \\\\ \\n\n\\\n"\n',
    "markup": b"<a href='x'>&amp;</a>\n",
    "controls": bytes(range(32)) + b"\x7f\n",
    "carriage returns": b"progress 1\rprogress 2\r\nok\r\n",
    "utf-8": "æøå 漢字 🚢 \u2028 \u2029\n".encode(),
    "looks like an entry": b'{"log":"x\\n","stream":"stderr","time":"2020-01-01T00:00:00Z"}\n',
    "looks like an entry's end": b'a\\n","stream":"stdout","time":"2020-01-01T00:00:00.000000000Z"}\nb',
    "exactly a part": b"p" * PARTIAL_BYTES + b"\n",
    "just below a part": b"q" * (PARTIAL_BYTES - 1) + b"\nnext\n",
    "long line": b"r" * 40000 + b"\nshort\n" + b"s" * 20000 + b"\n",
    "long without end": b"t" * 40000,
    "long utf-8": "漢".encode() * 20000 + b"\n",
    "many": b"".join(b"line %d\n" % number for number in range(5000)),
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "x-json.log")


def write(path: str, chunks: list[tuple[str, bytes]], **options: str) -> None:
    writer = open_writer("json-file", path, options)
    for stream, chunk in chunks:
        writer.write(stream, chunk)
    writer.finish("stdout")
    writer.finish("stderr")
    writer.close()


def entries(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def text(path: str, **options: object) -> bytes:
    return b"".join(read_log(path, **options))  # type: ignore[arg-type]


def unframe(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while data:
        number, length = struct.unpack(">BxxxI", data[:8])
        frames.append((number, data[8 : 8 + length]))
        data = data[8 + length :]
    return frames


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("step", [1, 7, 16 * 1024, 1 << 20])
def test_round_trip(path: str, name: str, step: int) -> None:
    """Whatever the chunks it came in, the text is read back byte for byte."""
    data = TEXTS[name][:200_000]
    if step == 1:
        data = data[:3000]
    write(path, [("stdout", data[at : at + step]) for at in range(0, len(data), step)])
    assert text(path) == data
    assert b"".join(frame for _, frame in unframe(text(path, framed=True))) == data
    assert all(set(entry) == {"log", "stream", "time"} for entry in entries(path))


def test_entries_are_dockers(path: str) -> None:
    """Names, order and escapes are those of dockerd 20.10."""
    write(path, [("stderr", b'a\t<b> & "c"\r\n')])
    line = Path(path).read_bytes()
    start, _, end = line.partition(b'"time":"')
    assert start == (rb'{"log":"a\u0009\u003cb\u003e \u0026 \"c\"\r\n","stream":"stderr",')
    assert end.endswith(b'Z"}\n')
    assert len(end) == len('2026-01-02T03:04:05.000000006Z"}\n')


def test_dockerd_writes_the_same(path: str) -> None:
    """Byte for byte what dockerd 20.10 logged for this output, but for the times."""
    payload = (
        b"plain\n\n" + bytes(range(1, 32)) + b'\x7f\na<b>&"c\\d/\n'
        + "æ漢🚢\u2028\u2029\n".encode() + b"bad\xff\xfe\xe2\x82x\xed\xa0\x80\n"
        + b"x" * 16384 + b"\n" + b"y" * 16383 + b"\n" + b"z" * 40000 + b"\nend"
    )  # fmt: skip
    write(path, [("stdout", payload)])
    recorded = Path(__file__).with_name("data") / "dockerd-20.10-json.log"
    times = re.compile(rb'"time":"[^"]*"')
    assert times.sub(b"", Path(path).read_bytes()) == times.sub(b"", recorded.read_bytes())
    assert text(str(recorded)) == text(path)


def test_each_bad_byte_is_replaced(path: str) -> None:
    write(path, [("stdout", b"a\xff\xfeb\xe2\x82c\xed\xa0\x80\n")])
    assert entries(path)[0]["log"] == "a\ufffd\ufffdb\ufffd\ufffdc\ufffd\ufffd\ufffd\n"


def test_long_lines_become_parts(path: str) -> None:
    """16 KiB a part; only the last one ends in a newline."""
    write(path, [("stdout", b"x" * 40000 + b"\nend\n")])
    assert [len(entry["log"]) for entry in entries(path)] == [16384, 16384, 7233, 4]


def test_parts_do_not_cut_characters(path: str) -> None:
    write(path, [("stdout", "🚢".encode() * 5000 + b"\n")])
    assert "\ufffd" not in "".join(entry["log"] for entry in entries(path))


def test_streams_are_kept_apart(path: str) -> None:
    write(path, [("stdout", b"out, "), ("stderr", b"err\n"), ("stdout", b"more\n")])
    assert text(path, stdout=False) == b"err\n"
    assert text(path, stderr=False) == b"out, more\n"
    assert unframe(text(path, framed=True)) == [(2, b"err\n"), (1, b"out, more\n")]


def test_frames_of_lines(path: str) -> None:
    write(path, [("stdout", b"1\n22\n"), ("stdout", b"x")])
    assert unframe(text(path, framed=True)) == [(1, b"1\n22\nx")]
    assert unframe(text(path, framed=True, frame_lines=True)) == [
        (1, b"1\n"),
        (1, b"22\n"),
        (1, b"x"),
    ]


def test_attributes(path: str) -> None:
    write(path, [("stdout", b"a\nb\n")], attrs='{"stream":"stderr","z":"1"}')
    assert entries(path)[0]["attrs"] == {"stream": "stderr", "z": "1"}
    assert text(path) == b"a\nb\n"
    assert text(path, details=True) == b"stream=stderr,z=1 a\nstream=stderr,z=1 b\n"


@pytest.mark.parametrize("count", [0, 1, 2, 4999, 5000, 6000])
def test_tail(path: str, count: int) -> None:
    write(path, [("stdout", TEXTS["many"])])
    lines = TEXTS["many"].splitlines(keepends=True)
    assert text(path, tail=count) == b"".join(lines[len(lines) - min(count, len(lines)) :])


def test_times(path: str) -> None:
    """since and until include their instants; foreign time stamps may be shorter than ours."""
    stamps = ["01.5", "02", "03.000000001", "04.999999999"]
    Path(path).write_text(
        "".join(
            json.dumps({"log": f"{s}\n", "stream": "stdout", "time": f"2026-01-01T00:00:{s}Z"})
            + "\n"
            for s in stamps
        )
    )
    base = 1767225600 * 10**9
    assert text(path, since_ns=base + 2 * 10**9) == b"02\n03.000000001\n04.999999999\n"
    assert text(path, until_ns=base + 3 * 10**9 + 1) == b"01.5\n02\n03.000000001\n"
    assert text(path, timestamps=True, tail=4).startswith(b"2026-01-01T00:00:01.500000000Z 01.5\n")


def test_timestamps_on_many_lines(path: str) -> None:
    write(path, [("stdout", b"a\nb\nc\nd\ne\nf\n")])
    stamp = entries(path)[0]["time"].encode()
    assert text(path, timestamps=True) == b"".join(stamp + b" %c\n" % c for c in b"abcdef")


def test_torn_entry_is_left_out_and_cut_off(path: str) -> None:
    """A crash in the middle of a write costs that entry and no other."""
    write(path, [("stdout", b"whole\n")])
    with open(path, "ab") as log:
        log.write(b'{"log":"torn')
    assert text(path) == b"whole\n"
    write(path, [("stdout", b"next\n")])
    assert text(path) == b"whole\nnext\n"
    assert len(entries(path)) == 2


def test_strange_lines_are_left_out(path: str) -> None:
    write(path, [("stdout", b"a\n")])
    with open(path, "ab") as log:
        log.write(b'\0\0\0\n{"log":1}\n[]\n')
    write(path, [("stdout", b"b\n")])
    assert text(path) == b"a\nb\n"


@pytest.mark.parametrize("compress", ["false", "true"])
def test_rotation(path: str, compress: str) -> None:
    """Files are as big as asked, the oldest go, the reader sees them as one log."""
    options = {"max-size": "10k", "max-file": "3", "compress": compress}
    lines = [b"number %06d\n" % number for number in range(1000)]
    write(path, [("stdout", b"".join(lines))], **options)
    suffix = ".gz" if compress == "true" else ""
    names = {Path(path).name + end for end in ("", f".1{suffix}", f".2{suffix}")}
    assert set(os.listdir(os.path.dirname(path))) == names
    assert os.path.getsize(path) <= 10_000 + 200
    kept = text(path).splitlines(keepends=True)
    assert kept == lines[-len(kept) :]
    assert len(kept) > 200
    assert text(path, tail=150) == b"".join(lines[-150:])
    assert text(path, tail=len(kept)) == b"".join(kept)


def test_rotation_with_one_file(path: str) -> None:
    write(path, [("stdout", TEXTS["many"])], **{"max-size": "1k"})
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert os.path.getsize(path) <= 1200


def test_no_space_leaves_no_half_entry(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer reports the loss, the file stays whole, later entries go on."""
    writer = JSONFileWriter(path, {})
    writer.write("stdout", b"before\n")
    room = [40]
    real_write = os.write

    def full(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real_write(fd, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        writer.write("stdout", b"lost\n")
    monkeypatch.setattr(os, "write", real_write)
    writer.write("stdout", b"after\n")
    writer.close()
    assert text(path) == b"before\nafter\n"


def test_missing_log_is_empty(path: str) -> None:
    assert text(path) == b""
    assert text(path, tail=5) == b""


@pytest.mark.parametrize(
    ("given", "size"), [("10", 10), ("10k", 10_000), ("1.5m", 1_500_000), ("2GB", 2 * 10**9)]
)
def test_sizes(given: str, size: int) -> None:
    assert parse_size(given) == size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max-file": "0"}, "max-file cannot be less than 1"),
        ({"nope": "1"}, "unknown log opt 'nope' for json-file log driver"),
        ({"compress": "true"}, "compress cannot be true when"),
        ({"max-size": "big"}, "invalid size: 'big'"),
    ],
)
def test_bad_options(path: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        open_writer("json-file", path, options)


def test_unknown_driver(path: str) -> None:
    with pytest.raises(InvalidArgument, match="no log driver named 'nope' is registered"):
        open_writer("nope", path, {})
