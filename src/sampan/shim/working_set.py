"""Which pages a helper's work touches: learned from the first that do it, had ahead by later ones.

After fork(2) each page that a process writes to is copied at its first write, and each page of a file is
mapped again: a thousand faults, one at a time, while somebody waits. Taken in bulk and before there
is work (madvise(2), MADV_POPULATE_READ and MADV_POPULATE_WRITE) they cost a third and keep nobody waiting. To take
all pages, though, is five milliseconds of a processor, eight mebibytes, and another millisecond when the
process ends; what the work needs is a quarter of that. Addresses are the same in all children of the
zygote, so those that a few have touched tell what the next ones will.
"""

from __future__ import annotations

import array
import ctypes
import os
import socket

from sampan.linux import syscalls as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # (first address, address behind the last, written to)
    Span = tuple[int, int, bool]

PAGE = 4096
MADV_POPULATE_READ = 22  # asm-generic/mman-common.h, Linux 5.14
MADV_POPULATE_WRITE = 23
# proc_pid_pagemap(5)
PRESENT = 1 << 63
EXCLUSIVE = 1 << 56
NEAR = 4  # pages between two spans that are cheaper to take than another system call
ENTRY = 16  # bytes of a span in a report
REPORT_LIMIT = 1 << 18  # bytes
MOST = 256 << 20  # bytes of memory: no work touches as much


class Observer:
    """What this process has touched since its fork; made before the work, while /proc is ours."""

    __slots__ = ("_pagemap",)

    def __init__(self) -> None:
        """Raises: OSError, where the kernel shows no pagemap."""
        self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def touched(self, areas: Iterable[Span]) -> list[Span]:
        """Pages of the areas: written to since the fork, or only there, as the area is."""
        found = []
        for start, end, writable in areas:
            wanted = PRESENT | EXCLUSIVE if writable else PRESENT
            size = (end - start) // PAGE * 8
            bits = array.array("Q", os.pread(self._pagemap, size, start // PAGE * 8))
            first = last = -1
            for number, page in enumerate(bits):
                if page & wanted != wanted:
                    continue
                if first >= 0 and number - last > NEAR:
                    found.append((start + first * PAGE, start + (last + 1) * PAGE, writable))
                    first = number
                elif first < 0:
                    first = number
                last = number
            if first >= 0:
                found.append((start + first * PAGE, start + (last + 1) * PAGE, writable))
        return found


def private_areas() -> list[Span]:
    """This process's private memory that can be read, as proc_pid_maps(5) has it."""
    areas = []
    with open("/proc/self/maps", "rb") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        span, mode = line.split(b" ", 2)[:2]
        if mode[3:] == b"p" and mode[:1] == b"r":
            start, end = (int(part, 16) for part in span.split(b"-"))
            areas.append((start, end, mode[1:2] == b"w"))
    return areas


def populate(spans: Iterable[Span]) -> None:
    """Take these pages now: those shared with the parent are copied, those of files mapped.

    A kernel that does not know how (before 5.14) leaves it at the faults, and so does memory that is
    none here.
    """
    for start, end, writable in spans:
        how = MADV_POPULATE_WRITE if writable else MADV_POPULATE_READ
        kernel.libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), how)


class Lesson:
    """What a helper may be asked to tell of its work, and where to: `wanted` are the kinds."""

    __slots__ = ("_sock", "wanted")

    def __init__(self, sock: socket.socket, wanted: frozenset[str]) -> None:
        self._sock = sock
        self.wanted = wanted

    def give(self, kind: str, spans: Iterable[Span]) -> None:
        """Tell; nobody may listen any more."""
        body = array.array(
            "Q", [word for start, end, writable in spans for word in (start | writable, end)]
        )
        try:
            self._sock.send(kind.encode() + b" " + body.tobytes(), socket.MSG_NOSIGNAL)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


class WorkingSet:
    """What has been learned, by the kind of the work."""

    __slots__ = ("_lessons", "_pages", "spans")

    LESSONS = 2  # of each kind: the first also pays for what is done once

    def __init__(self, kinds: Iterable[str]) -> None:
        self._lessons = dict.fromkeys(kinds, 0)
        self._pages: dict[int, bool] = {}
        self.spans: list[Span] = []

    def wanted(self) -> frozenset[str]:
        """The kinds of which more is to be learned."""
        return frozenset(kind for kind, count in self._lessons.items() if count < self.LESSONS)

    def learn(self, report: bytes) -> None:
        """Take what `Lesson.give` has sent; what is not wanted any more, or makes no sense, is passed over."""
        name, _, packed = report.partition(b" ")
        kind = name.decode(errors="replace")
        if kind not in self.wanted() or len(packed) % ENTRY:
            return
        words = array.array("Q", packed)
        spans = list(zip(words[::2], words[1::2], strict=True))
        if sum(max(0, end - start) for start, end in spans) > MOST:
            return
        self._lessons[kind] += 1
        for start, end in spans:
            writable = bool(start & 1)
            for address in range(start & ~1, end, PAGE):
                self._pages[address] = self._pages.get(address, False) or writable
        self.spans = _spans(self._pages)


def _spans(pages: dict[int, bool]) -> list[Span]:
    spans: list[Span] = []
    for address in sorted(pages):
        writable = pages[address]
        if spans and spans[-1][1] == address and spans[-1][2] == writable:
            spans[-1] = (spans[-1][0], address + PAGE, writable)
        else:
            spans.append((address, address + PAGE, writable))
    return spans
