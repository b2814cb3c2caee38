"""glibc's `/etc/ld.so.cache`: which file has which library's name.

    magic and version, 20 bytes | entries, strings' length, flags, extension: 28 bytes
    entry: kind, name, path (offsets into the file), 0, hardware, 24 bytes each
    strings

Sources: ldconfig(8), ld.so(8); glibc's dl-cache.h names the fields.
"""

from __future__ import annotations

import os
import struct

PATH = "/etc/ld.so.cache"
_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = struct.Struct("=20sIIB3xI12x")
_ENTRY = struct.Struct("=iIIIQ")
_ELF = 1
_LITTLE_ENDIAN = 2
_FILE_BYTES_MAX = 64 << 20
KINDS = {
    (64, 62): 0x0303, (32, 62): 0x0803, (32, 3): 0x0003, (64, 183): 0x0A03, (32, 40): 0x0903,
    (64, 243): 0x1003, (64, 21): 0x0503, (64, 22): 0x0403,
}  # fmt: skip
"""What a cache calls a library of so many bits for a machine (ELF's number of it)."""


def read(path: str = PATH) -> dict[str, list[str]]:
    """The paths that each name has, best first; empty where there is no cache.

    What is only for some processors (`glibc-hwcaps`) is left out: the image may run on another one.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_BYTES_MAX)
    except OSError:
        return {}
    start = data.find(_MAGIC)
    if start < 0 or len(data) < start + _HEADER.size:
        return {}
    data = data[start:]
    count = _HEADER.unpack_from(data)[1]
    found: dict[str, list[str]] = {}
    for number in range(min(count, (len(data) - _HEADER.size) // _ENTRY.size)):
        _, key, value, _, hardware = _ENTRY.unpack_from(data, _HEADER.size + number * _ENTRY.size)
        if hardware == 0:
            found.setdefault(_text(data, key), []).append(_text(data, value))
    return found


def encode(libraries: dict[tuple[str, int], str]) -> bytes:
    """A cache with these libraries: (name, one of KINDS) to path."""
    keys = sorted(libraries, key=lambda key: (_order(key[0]), key[1]), reverse=True)
    offset = _HEADER.size + len(keys) * _ENTRY.size
    strings = b""
    entries = b""
    for key in keys:
        name, kind = key
        entry = [kind]
        for text in (name, libraries[key]):
            entry.append(offset + len(strings))
            strings += os.fsencode(text) + b"\0"
        entries += _ENTRY.pack(*entry, 0, 0)
    return _HEADER.pack(_MAGIC, len(keys), len(strings), _LITTLE_ENDIAN, 0) + entries + strings


def _order(name: str) -> tuple[tuple[int, int], ...]:
    """ldconfig's order, by which the loader searches: digits count as numbers, and after letters."""
    parts: list[tuple[int, int]] = []
    position = 0
    while position < len(name):
        end = position
        while end < len(name) and "0" <= name[end] <= "9":
            end += 1
        if end > position:
            parts.append((1, int(name[position:end])))
            position = end
        else:
            byte = os.fsencode(name[position])[0]
            parts.append((0, byte - 256 if byte > 127 else byte))
            position += 1
    return tuple(parts)


def _text(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset)
    return os.fsdecode(data[offset:end]) if 0 <= offset < end else ""
