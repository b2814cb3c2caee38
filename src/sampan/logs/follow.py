"""Following a log while its container runs: read to the end, sleep until the writer wrote, go on.

The writer is another process; inotify(7) on the file and its directory tells of its writes and rotations.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import TYPE_CHECKING

from sampan.logs import rotation
from sampan.logs.json_file import BLOCK_BYTES, Renderer, decompressed, find_tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# sys/inotify.h
IN_CLOEXEC = 0o2000000
IN_CREATE = 0x100
IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_NONBLOCK = 0o4000

LIBC = ctypes.CDLL(None, use_errno=True)


async def follow_log(
    path: str,
    *,
    ended: asyncio.Event,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    timestamps: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    framed: bool = False,
    frame_lines: bool = True,
    details: bool = False,
) -> AsyncIterator[bytes]:
    """As `json_file.read_log`, and then what comes, until `ended` is set and all is read.

    `ended` is set by the caller when the log is complete. A line is a frame here by default, for
    clients print what they follow frame by frame. The directory of `path` exists; the log may come later.

    Raises:
        OSError: no inotify instance or watch is left (EMFILE, ENOSPC).
    """
    renderer = Renderer(
        since_ns=since_ns,
        until_ns=until_ns,
        timestamps=timestamps,
        stdout=stdout,
        stderr=stderr,
        framed=framed,
        frame_lines=frame_lines,
        details=details,
    )
    with Watch(path) as watch, Cursor(path, tail) as cursor:
        while not renderer.past_end:
            last_round = ended.is_set()
            while block := cursor.read():
                for chunk in renderer.render(block):
                    yield chunk
                if renderer.past_end:
                    return
                await asyncio.sleep(0)
            if last_round:
                return
            await watch.changed(ended)


class Cursor:
    """A place in a log that moves over rotations; a file once opened is read to its end."""

    def __init__(self, path: str, tail: int | None) -> None:
        self._path = path
        self._rest = b""
        self._files = rotation.open_files(path)  # oldest first; the first one is being read
        self._offset = 0
        if tail is not None:
            first, self._offset = find_tail(self._files, tail)
            for fd, _ in self._files[:first]:
                os.close(fd)
            del self._files[:first]

    def read(self) -> bytes:
        """The next whole entries; empty when there are none yet."""
        while True:
            if not self._files:
                if not self._find_newer():
                    return b""
                continue
            fd, compressed = self._files[0]
            if compressed:
                entries = b"".join(decompressed(fd))[self._offset :]
                self._leave_file()
                if entries:
                    return entries
                continue
            block = os.pread(fd, BLOCK_BYTES // 4, self._offset)
            self._offset += len(block)
            if block:
                if entries := self._whole(block):
                    return entries
            elif len(self._files) > 1:
                self._leave_file()
            elif not self._find_newer():  # when there is one: read on first, then leave
                return b""

    def _whole(self, block: bytes) -> bytes:
        cut = block.rfind(b"\n") + 1
        if not cut:
            self._rest += block
            return b""
        entries = self._rest + block[:cut]
        self._rest = block[cut:]
        return entries

    def _leave_file(self) -> None:
        os.close(self._files.pop(0)[0])
        self._offset = 0
        self._rest = b""

    def _find_newer(self) -> bool:
        """Queue the files that came after the one being read; whether there are any."""
        current = self._files[-1][0] if self._files else None
        if current is not None and rotation.same_file(self._path, current):
            return False
        files = rotation.open_files(self._path)
        first = 0
        for number, (fd, compressed) in enumerate(files):
            if compressed or (current is not None and os.path.sameopenfile(fd, current)):
                first = number + 1  # gone through; a compressed one was, under another name
        for fd, _ in files[:first]:
            os.close(fd)
        self._files += files[first:]
        return first < len(files)

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        for fd, _compressed in self._files:
            os.close(fd)


class Watch:
    """Wakes when the log or another file of its directory changes."""

    def __init__(self, path: str) -> None:
        self._directory = os.path.dirname(path) or "."
        self._fd = -1

    async def changed(self, ended: asyncio.Event) -> None:
        """Return when something was written since the last call, or `ended` is set."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._fd, resolve, woken)
        end = loop.create_task(wait_for(ended))
        try:
            await asyncio.wait({woken, end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
            loop.remove_reader(self._fd)
        if woken.done():
            self._drain()

    def _drain(self) -> None:
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            pass

    def __enter__(self) -> Watch:
        self._fd = checked(LIBC.inotify_init1(IN_CLOEXEC | IN_NONBLOCK), "inotify_init1")
        mask = IN_CREATE | IN_MODIFY | IN_MOVED_TO
        try:
            checked(
                LIBC.inotify_add_watch(self._fd, os.fsencode(self._directory), mask),
                "inotify_add_watch",
            )
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


async def wait_for(event: asyncio.Event) -> None:
    await event.wait()


def resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def checked(result: int, call: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")
    return result
