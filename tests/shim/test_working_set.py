"""`sampan.shim.working_set`: what is learned is what was touched."""

from __future__ import annotations

import array
import mmap
import os
import socket
from collections.abc import Iterator

import pytest

from sampan.shim import working_set
from sampan.shim.working_set import PAGE, REPORT_LIMIT, Lesson, Observer, WorkingSet

KIND = "exec"


@pytest.fixture
def memory() -> Iterator[tuple[mmap.mmap, int]]:
    """64 pages of this process's own, written to, and their address."""
    with mmap.mmap(-1, 64 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.write(b"x" * len(area))
        address = next(
            start
            for start, end, writable in working_set.private_areas()
            if writable and end - start >= 64 * PAGE and _is_at(area, start)
        )
        yield area, address


def _is_at(area: mmap.mmap, start: int) -> bool:
    mark = os.urandom(16)
    area[:16] = mark
    with open("/proc/self/mem", "rb", buffering=0) as file:
        file.seek(start)
        return file.read(16) == mark


def _in_child(area: mmap.mmap, address: int, pages: tuple[int, ...]) -> list[tuple[int, int]]:
    """What an observer in a fork of this process says of the area after writing to these pages."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            observer = Observer()
            for page in pages:
                area[page * PAGE] = 1
            spans = observer.touched([(address, address + 64 * PAGE, True)])
            os.write(writer, array.array("Q", [n for s, e, _ in spans for n in (s, e)]).tobytes())
        finally:
            os._exit(0)
    os.close(writer)
    words = array.array("Q", os.read(reader, 4096))
    os.close(reader)
    os.waitpid(child, 0)
    return [
        ((start - address) // PAGE, (end - address) // PAGE)
        for start, end in zip(words[::2], words[1::2], strict=True)
    ]


@pytest.mark.parametrize(
    ("written", "spans"),
    [
        ((), []),
        ((0,), [(0, 1)]),
        ((3, 4, 5), [(3, 6)]),
        ((3, 7), [(3, 8)]),  # so near that one call is cheaper
        ((3, 8, 63), [(3, 4), (8, 9), (63, 64)]),
    ],
)
def test_only_what_was_written_to_since_the_fork(
    memory: tuple[mmap.mmap, int], written: tuple[int, ...], spans: list[tuple[int, int]]
) -> None:
    assert _in_child(*memory, written) == spans


def test_what_is_taken_ahead_causes_no_fault(memory: tuple[mmap.mmap, int]) -> None:
    area, address = memory
    child = os.fork()
    if child == 0:
        try:
            observer = Observer()
            working_set.populate([(address, address + 2 * PAGE, True), (1 << 46, 1 << 47, True)])
            taken = observer.touched([(address, address + 64 * PAGE, True)])
            os._exit(0 if taken == [(address, address + 2 * PAGE, True)] else 1)
        finally:
            os._exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert area[PAGE] == ord("x")
    assert code == 0


def test_own_memory_only() -> None:
    areas = working_set.private_areas()
    assert areas
    assert all(start < end and start % PAGE == end % PAGE == 0 for start, end, _ in areas)
    assert {writable for _, _, writable in areas} == {True, False}


def report(*spans: tuple[int, int, bool], kind: str = KIND) -> bytes:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        Lesson(ours, frozenset({kind})).give(kind, spans)
        return theirs.recv(REPORT_LIMIT)


def test_learned_from_several() -> None:
    pages = WorkingSet([KIND, "spawn"])
    assert pages.wanted() == {KIND, "spawn"}
    pages.learn(report((0, 2 * PAGE, False), (8 * PAGE, 9 * PAGE, True)))
    assert pages.spans == [(0, 2 * PAGE, False), (8 * PAGE, 9 * PAGE, True)]
    pages.learn(report((PAGE, 3 * PAGE, True)))
    assert pages.spans == [
        (0, PAGE, False),
        (PAGE, 3 * PAGE, True),
        (8 * PAGE, 9 * PAGE, True),
    ]
    assert pages.wanted() == {"spawn"}


def test_no_more_than_wanted() -> None:
    pages = WorkingSet([KIND])
    for number in range(WorkingSet.LESSONS + 1):
        pages.learn(report((number * PAGE, (number + 1) * PAGE, True)))
    assert pages.spans == [(0, WorkingSet.LESSONS * PAGE, True)]
    assert not pages.wanted()
    pages.learn(report((0, PAGE, True), kind="other"))
    assert pages.spans == [(0, WorkingSet.LESSONS * PAGE, True)]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"exec",
        b"\xff\xfe " + bytes(16),
        b"exec " + bytes(15),
        report((0, 1 << 60, True)),
    ],
)
def test_nonsense(nonsense: bytes) -> None:
    pages = WorkingSet([KIND])
    pages.learn(nonsense)
    assert pages.spans == []


def test_nobody_listens() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    lesson = Lesson(ours, frozenset({KIND}))
    lesson.give(KIND, [(0, PAGE, True)])
    lesson.close()
