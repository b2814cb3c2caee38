"""Events on disk: append-only segment files of JSON lines below `<data root>/events`.

log = EventLog("/var/lib/sampan/events", limits)
log.append(log.last + 1, time_ns, line)        # one write(2); in the kernel when it returns
lines, place = log.read(log.place_of(after))   # in any thread; place is None at the end

A segment is named after the number of its first event. Its first line says in which boot of the
machine it was begun and the latest time of all events before it.

What was appended survives the end of this process, however it comes. A crash of the machine can
take what the kernel had not written back; numbers are not used again all the same: in another boot
they go on far behind the last that was found.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from sampan.linux.allocation import reserve

SEGMENT_BYTES = 1 << 20
READ_BYTES = 256 << 10
SUFFIX = ".jsonl"
# More than a machine can lose in a crash: what one emits between two write-backs, many times over.
BOOT_GAP = 1_000_000
# So many segments hold what is kept, so that the oldest part that goes at once is small.
PARTS = 8
BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"


@dataclass(slots=True)
class Limits:
    """What is kept: bytes on disk, and seconds; an eighth more of either for some time."""

    size_bytes: int = 64 << 20
    age_s: float = 30 * 86400.0


class Place(NamedTuple):
    """Where to read on: the first number of a segment, and an offset in it."""

    segment: int
    offset: int


class _Header(msgspec.Struct, kw_only=True):
    boot: str = ""
    latest_ns: int = 0
    begun_ns: int = 0


class _Stamp(msgspec.Struct):
    """What this module reads of an event."""

    number: int
    time_ns: int


class _Segment(NamedTuple):
    first: int
    latest_ns: int  # of all events before it
    begun_ns: int


_header = msgspec.json.Decoder(_Header).decode
_stamp = msgspec.json.Decoder(_Stamp).decode


class EventLog:
    """The segments of one data root; appended to by one thread, read by any.

    `last` is the number of the last event (0: none yet), `latest_ns` the latest time of all.

    Raises:
        OSError: the directory cannot be used.
    """

    def __init__(self, directory: str, limits: Limits | None = None) -> None:
        self.directory = directory
        self.limits = limits or Limits()
        self.last = 0
        self.latest_ns = 0
        self._fd = -1
        self._size = 0
        self._segments: tuple[_Segment, ...] = ()
        with open(BOOT_ID_PATH, encoding="ascii") as file:
            self._boot = file.read().strip()
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._find()

    @property
    def oldest(self) -> int:
        """The number of the oldest event that is kept; that of the next where none is."""
        return self._segments[0].first if self._segments else self.last + 1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Appending

    def append(self, number: int, time_ns: int, line: bytes) -> None:
        """Add an event, whole or not at all; `line` is its JSON without a newline, with `number`
        and `time_ns` among its members.

        Raises:
            OSError: it was not added; the disk is full or broken.
        """
        if self._fd < 0 or self._is_full(len(line), time_ns):
            self._begin(number, time_ns)
        data = line + b"\n"
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
        self.last, self.latest_ns = number, max(time_ns, self.latest_ns)

    def _is_full(self, more: int, now_ns: int) -> bool:
        wanted = min(SEGMENT_BYTES, self.limits.size_bytes // PARTS)
        if self._size + more > wanted:
            return True
        return now_ns - self._segments[-1].begun_ns > self.limits.age_s / PARTS * 1e9

    def _begin(self, first: int, now_ns: int) -> None:
        """Go on in a new segment, and let go of the oldest ones where it is time."""
        header = _Header(boot=self._boot, latest_ns=self.latest_ns, begun_ns=now_ns)
        line = msgspec.json.encode(header) + b"\n"
        path = self._path(first)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # On a full disk the events of this segment still have room.
            reserve_if_possible(fd, min(SEGMENT_BYTES, self.limits.size_bytes // PARTS))
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        except OSError:
            os.close(fd)
            os.unlink(path)
            raise
        self.close()
        self._fd, self._size = fd, len(line)
        self._segments = (*self._segments, _Segment(first, self.latest_ns, now_ns))
        self.prune(now_ns)

    def prune(self, now_ns: int | None = None) -> None:
        """Remove the segments that are over the limits; never the one that is written to."""
        now_ns = time.time_ns() if now_ns is None else now_ns
        horizon_ns = now_ns - int(self.limits.age_s * 1e9)
        segments = self._segments
        sizes = [self._size_of(segment.first) for segment in segments]
        gone = 0
        while gone < len(segments) - 1 and (
            segments[gone + 1].latest_ns < horizon_ns or sum(sizes[gone:]) > self.limits.size_bytes
        ):
            gone += 1
        self._segments = segments[gone:]
        for segment in segments[:gone]:
            _unlink(self._path(segment.first))

    # Reading

    def place_of(self, after: int = 0, since_ns: int = 0) -> Place:
        """A place before the first event with a number above `after` and a time from `since_ns`."""
        segments = self._segments
        chosen = 0
        for index in range(1, len(segments)):
            if segments[index].first <= after + 1 or segments[index].latest_ns < since_ns:
                chosen = index
        return Place(segments[chosen].first if segments else 0, 0)

    def read(self, place: Place) -> tuple[list[bytes], Place | None]:
        """Some lines from a place on, and where to go on; None when all was read.

        Blocks. Where a segment has been let go of meanwhile, the next one is read.
        """
        for segment in self._segments:
            if segment.first < place.segment:
                continue
            offset = place.offset if segment.first == place.segment else 0
            try:
                lines, end = self._lines(segment.first, offset)
            except FileNotFoundError:
                continue
            if lines:
                return lines if offset else lines[1:], Place(segment.first, end)
        return [], None

    def _lines(self, first: int, offset: int) -> tuple[list[bytes], int]:
        """Whole lines of a segment, its header among them, and where they end."""
        with open(self._path(first), "rb", buffering=0) as file:
            file.seek(offset)
            data = bytearray()
            while chunk := file.read(READ_BYTES):
                data += chunk
                if (cut := data.rfind(b"\n") + 1) > 0:
                    return bytes(data[: cut - 1]).split(b"\n"), offset + cut
        return [], offset

    # Opening

    def _find(self) -> None:
        """Take over what a former process left."""
        names = (name for name in os.listdir(self.directory) if name.endswith(SUFFIX))
        found = sorted(int(name[: -len(SUFFIX)]) for name in names if name[:20].isdecimal())
        segments = []
        header = _Header()
        for first in found:
            loaded = self._header_of(first)
            if loaded is None:
                _unlink(self._path(first))  # its making was cut off: nothing was in it
                continue
            header = loaded
            segments.append(_Segment(first, header.latest_ns, header.begun_ns))
        self._segments = tuple(segments)
        if not segments:
            return
        last = segments[-1]
        self.last, self.latest_ns = last.first - 1, last.latest_ns
        self._go_on(last.first, header)

    def _go_on(self, first: int, header: _Header) -> None:
        """Find the last event of the last segment, and cut off what is not whole behind it."""
        offset = 0
        while True:
            lines, offset_behind = self._lines(first, offset)
            for line in lines if offset else lines[1:]:
                stamp = stamp_of(line)
                if stamp is not None:
                    self.last = max(self.last, stamp.number)
                    self.latest_ns = max(self.latest_ns, stamp.time_ns)
            if not lines:
                break
            offset = offset_behind
        if header.boot != self._boot:
            self.last += BOOT_GAP
            return  # the next event begins a segment of this boot
        self._fd = os.open(self._path(first), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(self._fd, offset)
        self._size = offset

    def _header_of(self, first: int) -> _Header | None:
        with open(self._path(first), "rb", buffering=0) as file:
            line, newline, _ = file.read(4096).partition(b"\n")
        if not newline:
            return None
        try:
            return _header(line)
        except msgspec.DecodeError:
            # A crash of the machine left something else: its events are no younger than now.
            return _Header(latest_ns=time.time_ns())

    def _path(self, first: int) -> str:
        return f"{self.directory}/{first:020d}{SUFFIX}"

    def _size_of(self, first: int) -> int:
        try:
            return os.stat(self._path(first)).st_size
        except FileNotFoundError:
            return 0


def stamp_of(line: bytes) -> _Stamp | None:
    """Number and time of a line; None where a crash of the machine left something else."""
    try:
        return _stamp(line)
    except msgspec.DecodeError:
        return None


def reserve_if_possible(fd: int, size_bytes: int) -> None:
    """Reserve blocks; without effect where the disk is full or the file system cannot."""
    try:
        reserve(fd, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EDQUOT, errno.ENOSPC, errno.EOPNOTSUPP):
            raise


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
