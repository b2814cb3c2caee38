"""Docker's multiplexed stream: an 8-byte header (stream, three zeros, length big-endian) and the text.

Source: Engine API, ContainerAttach, "Stream format".
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = {b"stdin": b"\0\0\0\0", b"stdout": b"\1\0\0\0", b"stderr": b"\2\0\0\0"}
CHUNK_BYTES = 256 * 1024


class Framer:
    """Collects text by stream and gives it out in order, framed or plain."""

    def __init__(self, *, framed: bool, frame_lines: bool) -> None:
        self._framed = framed
        self._frame_lines = frame_lines
        self._stream = b""
        self._texts: list[bytes] = []
        self._chunks: list[bytes] = []

    def add(self, stream: bytes, text: bytes) -> None:
        if stream != self._stream and self._framed:
            self._close_frame()
            self._stream = stream
        self._texts.append(text)

    def take(self) -> Iterator[bytes]:
        """All that was added, in chunks of whole frames."""
        self._close_frame()
        chunks, self._chunks = self._chunks, []
        size = 0
        batch: list[bytes] = []
        for chunk in chunks:
            batch.append(chunk)
            size += len(chunk)
            if size >= CHUNK_BYTES:
                yield b"".join(batch)
                batch, size = [], 0
        if batch:
            yield b"".join(batch)

    def _close_frame(self) -> None:
        if not self._texts:
            return
        text = b"".join(self._texts) if len(self._texts) > 1 else self._texts[0]
        self._texts = []
        if not self._framed:
            self._chunks.append(text)
        elif self._frame_lines:
            self._chunks.append(frame_each_line(self._stream, text))
        else:
            self._chunks += (header(self._stream, len(text)), text)


def header(stream: bytes, length: int) -> bytes:
    return NUMBERS[stream] + length.to_bytes(4, "big")


def frame_each_line(stream: bytes, text: bytes) -> bytes:
    number = NUMBERS[stream]
    headers: dict[int, bytes] = {}
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    if not lines[-1]:
        lines.pop()
    for length in {len(line) for line in lines}:
        headers[length] = number + length.to_bytes(4, "big")
    return b"".join([headers[len(line)] + line for line in lines])


def format_time(time_ns: int) -> bytes:
    """RFC 3339 in UTC with nine digits."""
    second, nanoseconds = divmod(time_ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{text}.{nanoseconds:09d}Z".encode()
