"""Multiplexed output is taken apart whatever the pieces; detach keys are found wherever they are cut."""

from __future__ import annotations

import os

import pytest

from sampan.cli.streams import DetachFilter, Output, parse_detach_keys


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("size", [1, 3, 8, 9, 1000])
def test_frames_in_pieces(size: int) -> None:
    out_read, out = os.pipe()
    err_read, err = os.pipe()
    wire = (
        frame(1, b"one\n")
        + frame(2, b"bad\n")
        + frame(1, b"")
        + frame(1, b"two\n")
        + frame(2, b"x")
    )
    output = Output(raw=False, stdout=out, stderr=err)
    for start in range(0, len(wire), size):
        output.feed(wire[start : start + size])
    os.close(out)
    os.close(err)
    assert os.read(out_read, 100) == b"one\ntwo\n"
    assert os.read(err_read, 100) == b"bad\nx"
    os.close(out_read)
    os.close(err_read)


def test_key_names() -> None:
    assert parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-@,ctrl-[") == b"a\x00\x1b"
    for text in ("ctrl-", "xx", "", "ctrl-1"):
        with pytest.raises(ValueError):
            parse_detach_keys(text)


@pytest.mark.parametrize(
    ("pieces", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x10\x11"], b"", True),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11"], b"\x11", False),
    ],
)
def test_detach_sequence(pieces: list[bytes], passed: bytes, detached: bool) -> None:
    keys = DetachFilter(b"\x10\x11")
    seen, done = b"", False
    for piece in pieces:
        out, done = keys.feed(piece)
        seen += out
    assert (seen, done) == (passed, detached)
