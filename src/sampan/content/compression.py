"""Compressed streams, told apart by their first bytes as Docker does."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any, cast

from isal import isal_zlib

from sampan.errors import InvalidArgument

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Read = Callable[[int], bytes]
PIECE = 1 << 20
"""The most that is decompressed at once: a bomb fills the disk's quota, not the memory."""

_FED = 128 << 10
"""Of the input at once: what a member leaves of it is copied, and a stream may have very many."""
_XZ_MEMORY = 128 << 20
"""What a stream's dictionary may take: xz -9 needs 65 MiB, a hostile header asks for 4 GiB."""
_MAGIC_LENGTH = 6
_MAGIC = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_ERRORS: tuple[type[Exception], ...] = (
    cast(type[Exception], isal_zlib.error),  # isal's stub says it is an instance
    zlib.error,
    zstd.ZstdError,
    OSError,
    lzma.LZMAError,
    EOFError,
)


class BadCompression(InvalidArgument):
    """A compressed stream is damaged or cut short."""


def compression_of(head: bytes) -> str:
    """`gzip`, `zstd`, `bzip2`, `xz` or "" by the first six bytes."""
    if head[:3] and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"  # a skippable frame
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def decompressed(read: Read) -> tuple[Read, str]:
    """A `read` of the plain bytes, and what they were compressed with ("" if they were not).

    Raises (when read):
        BadCompression: the stream is damaged or ends early.
    """
    head = b""
    while len(head) < _MAGIC_LENGTH and (piece := read(PIECE)):
        head += piece
    compression = compression_of(head)
    source = _Prefixed(head, read)
    if not compression:
        return source.read, ""
    return _Decompressor(source.read, compression).read, compression


class _Prefixed:
    """Bytes that were read ahead, then the rest of the stream."""

    def __init__(self, head: bytes, read: Read) -> None:
        self._head = head
        self._read = read

    def read(self, size: int) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._read(size)


class _Decompressor:
    """Plain bytes of a stream of one or more members or frames."""

    def __init__(self, read: Read, compression: str) -> None:
        self._read = read
        self._compression = compression
        self._make: Callable[[], Any] = _MAKERS[compression]
        self._engine = self._make()
        self._input = b""
        self._begun = False

    def read(self, size: int) -> bytes:
        try:
            return self._next(min(size, PIECE))
        except _ERRORS as error:
            raise BadCompression(f"invalid {self._compression} stream: {error}") from error

    def _next(self, size: int) -> bytes:
        while True:
            if self._engine.eof and not self._next_member():
                return b""
            if not self._input and self._engine.needs_input:
                self._input = self._read(_FED)
                if not self._input:
                    if self._begun:
                        raise BadCompression("unexpected EOF")
                    return b""
            self._begun = True
            plain: bytes = self._engine.decompress(self._input, size)
            self._input = b""
            if plain:
                return plain

    def _next_member(self) -> bool:
        rest: bytes = self._engine.unused_data
        while True:
            if self._compression in ("gzip", "xz"):
                rest = rest.lstrip(b"\0")  # padding after a member
            if len(rest) >= _MAGIC_LENGTH or not (piece := self._read(_FED)):
                break
            rest += piece
        if not rest or compression_of(rest) != self._compression:
            return False
        self._engine = self._make()
        self._input = rest
        return True


class _Gzip:
    """isal's zlib object with the interface of the other decompressors."""

    def __init__(self) -> None:
        self._engine = isal_zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return bool(self._engine.eof)

    @property
    def needs_input(self) -> bool:
        return not self._engine.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return bytes(self._engine.unused_data)

    def decompress(self, data: bytes, size: int) -> bytes:
        return bytes(self._engine.decompress(self._engine.unconsumed_tail + data, size))


_MAKERS: dict[str, Callable[[], Any]] = {
    "gzip": _Gzip,
    "zstd": zstd.ZstdDecompressor,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY),
}
