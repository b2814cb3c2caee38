"""A stream read ahead is the stream; its thread ends with it."""

from __future__ import annotations

import threading

import pytest

from sampan.snapshots.ahead import ReadAhead
from support.tars import reader

DATA = b"".join(b"%099d\n" % number for number in range(80_000))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize(("step", "size"), [(1 << 20, 1 << 20), (70_001, 1 << 20), (1 << 20, 999)])
def test_every_byte_once_and_in_order(step: int, size: int) -> None:
    parts = []
    with ReadAhead(reader(DATA, step)) as ahead:
        while piece := ahead.read(size):
            assert len(piece) <= size
            parts.append(piece)
        assert ahead.read(size) == b""
    assert b"".join(parts) == DATA


def test_small_streams_need_no_thread() -> None:
    with ReadAhead(reader(DATA[:100_000])) as ahead:
        assert ahead.read(1 << 20) == DATA[:100_000]
        assert ahead.read(1 << 20) == b""
        assert not threads()


def test_a_failure_comes_after_what_was_read_before_it() -> None:
    source = reader(DATA)

    def read(size: int) -> bytes:
        piece = source(size)
        if not piece:
            raise OSError(5, "torn")
        return piece

    got = 0
    with ReadAhead(read) as ahead, pytest.raises(OSError, match="torn"):
        while piece := ahead.read(1 << 20):
            got += len(piece)
    assert got == len(DATA)
    assert not threads()


def test_the_thread_ends_with_a_reader_that_wants_no_more() -> None:
    asked = 0

    def read(size: int) -> bytes:
        nonlocal asked
        asked += 1
        return bytes(size)

    with ReadAhead(read) as ahead:
        assert ahead.read(1 << 20)
    assert not threads()
    assert asked < 10
