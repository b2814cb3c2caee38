"""Where requests begin and end in the bytes of a connection, without parsing what they say.

The HTTP parser takes whatever comes. But what follows an attach or an exec start belongs to the
session and not to HTTP, so its last byte has to be known before the bytes behind it are given away.
Everything before it goes to the parser as it comes, and what is no HTTP is the parser's to refuse: from
there on everything is passed on.

Source: RFC 9112, sections 2.2 (empty lines before a request), 6 and 7.1 (length, chunks).
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Requests whose connection becomes a raw stream.
_HIJACKING = re.compile(
    rb"POST (?:https?://[^/ ]*)?(?:/v[0-9.]+)?/(?:containers/[^/ ]+/attach|exec/[^/ ]+/start)[? ]"
)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n", re.IGNORECASE)
# Behind these follows what is no request, as soon as they are answered with yes.
_LEAVING = re.compile(
    rb"CONNECT |.*?\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE | re.DOTALL
)
_CHUNK_SIZE = re.compile(rb"([0-9a-f]{1,15})[ \t]*(?:;.*)?\r", re.IGNORECASE | re.DOTALL)
_HEAD_END = b"\r\n\r\n"
_HEAD_LIMIT_BYTES = 256 << 10
_LINE_LIMIT_BYTES = 16 << 10


class Framing:
    """`requests` counts the heads seen. `hijacked`: the last one leaves HTTP and is complete, so
    that nothing is taken any more until `go_on`. `lost`: this is no HTTP, or none any more."""

    def __init__(self) -> None:
        self.requests = 0
        self.hijacked = False
        self.lost = False
        self._text = bytearray()
        self._left = 0
        self._hijacking = False
        self._step: Callable[[bytes, int], int] = self._between

    def take(self, data: bytes) -> int:
        """How many of these bytes are the parser's; all, unless a hijacking request ends before."""
        at = 0
        while at < len(data) and not self.hijacked:
            at = len(data) if self.lost else self._step(data, at)
        return at

    def go_on(self) -> None:
        """What comes next is a request again."""
        self.hijacked = self.lost = False
        self._begin(self._between)

    # Each step consumes some of `data` from `at` on, at least one byte, and returns where it ended.

    def _begin(self, step: Callable[[bytes, int], int]) -> None:
        self._text.clear()
        self._step = step

    def _give_up(self, data: bytes) -> int:
        self.lost = True
        self._text.clear()
        return len(data)

    def _between(self, data: bytes, at: int) -> int:
        while at < len(data) and data[at] in b"\r\n":
            at += 1
        if at < len(data):
            self._begin(self._head)
            return self._head(data, at)
        return at

    def _head(self, data: bytes, at: int) -> int:
        before = len(self._text)
        self._text += data[at : at + _HEAD_LIMIT_BYTES]
        end = self._text.find(_HEAD_END, max(0, before - len(_HEAD_END) + 1))
        if end < 0:
            return len(data) if len(self._text) < _HEAD_LIMIT_BYTES else self._give_up(data)
        end += len(_HEAD_END)
        head = bytes(self._text[:end])
        self._text.clear()
        self.requests += 1
        self._hijacking = _HIJACKING.match(head) is not None
        self._begin_body(head)
        return at + end - before

    def _begin_body(self, head: bytes) -> None:
        length = _CONTENT_LENGTH.search(head)
        if _LEAVING.match(head):
            self.lost = True
        elif _CHUNKED.search(head):
            self._begin(self._chunk_size)
        elif length and (size := int(length[1])):
            self._left = size
            self._begin(self._body)
        else:
            self._end()

    def _end(self) -> None:
        self.hijacked = self._hijacking
        self._begin(self._between)

    def _body(self, data: bytes, at: int) -> int:
        at = self._skip(data, at)
        if not self._left:
            self._end()
        return at

    def _skip(self, data: bytes, at: int) -> int:
        size = min(self._left, len(data) - at)
        self._left -= size
        return at + size

    def _chunk_size(self, data: bytes, at: int) -> int:
        line, at = self._line(data, at)
        if line is None:
            return at
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            return self._give_up(data)
        size = int(match[1], 16)
        if size:
            self._left = size + len(b"\r\n")
            self._begin(self._chunk)
        else:
            self._begin(self._trailer)
        return at

    def _chunk(self, data: bytes, at: int) -> int:
        at = self._skip(data, at)
        if not self._left:
            self._begin(self._chunk_size)
        return at

    def _trailer(self, data: bytes, at: int) -> int:
        line, at = self._line(data, at)
        if line == b"\r":
            self._end()
        return at

    def _line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """A line up to its LF, without it, and where the next one begins; None while incomplete."""
        end = data.find(b"\n", at)
        self._text += data[at : min(end if end >= 0 else len(data), at + _LINE_LIMIT_BYTES)]
        if len(self._text) >= _LINE_LIMIT_BYTES:
            return None, self._give_up(data)
        if end < 0:
            return None, len(data)
        line = bytes(self._text)
        self._text.clear()
        return line, end + 1
