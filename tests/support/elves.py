"""Small ELF files for tests: nothing to run, all that a loader would read."""

from __future__ import annotations

import struct
from collections.abc import Sequence

X86_64 = 62
_NEEDED, _STRTAB, _STRSZ, _SONAME, _RPATH, _RUNPATH = 1, 5, 10, 14, 15, 29


def elf(
    *,
    interpreter: str = "",
    needed: Sequence[str] = (),
    soname: str = "",
    rpath: str = "",
    runpath: str = "",
    machine: int = X86_64,
    bits: int = 64,
    order: str = "<",
) -> bytes:
    """An executable or library, laid out as header, program headers, strings, dynamic section."""
    wide = bits == 64
    strings = b"\0"
    entries: list[tuple[int, int]] = []
    for tag, text in [
        *((_NEEDED, name) for name in needed),
        (_SONAME, soname),
        (_RPATH, rpath),
        (_RUNPATH, runpath),
    ]:
        if text:
            entries.append((tag, len(strings)))
            strings += text.encode() + b"\0"
    base = 0x10000
    head_size, row_size = (64, 56) if wide else (52, 32)
    rows = 3 if interpreter else 2
    strings_at = head_size + rows * row_size
    name = interpreter.encode() + b"\0"
    name_at = strings_at + len(strings)
    dynamic_at = (name_at + len(name) + 15) & ~15
    entries += [(_STRTAB, base + strings_at), (_STRSZ, len(strings)), (0, 0)]
    dynamic = b"".join(
        struct.pack(order + ("qQ" if wide else "iI"), tag, value) for tag, value in entries
    )
    total = dynamic_at + len(dynamic)

    def row(kind: int, offset: int, size: int) -> bytes:
        if wide:
            return struct.pack(
                order + "IIQQQQQQ", kind, 4, offset, base + offset, base + offset, size, size, 8
            )
        return struct.pack(
            order + "IIIIIIII", kind, offset, base + offset, base + offset, size, size, 4, 4
        )

    table = row(1, 0, total) + row(2, dynamic_at, len(dynamic))
    if interpreter:
        table += row(3, name_at, len(name))
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    if wide:
        rest = struct.pack(
            order + "HHIQQQIHHHHHH", 3, machine, 1, base, 64, 0, 0, 64, 56, rows, 0, 0, 0
        )
    else:
        rest = struct.pack(
            order + "HHIIIIIHHHHHH", 3, machine, 1, base, 52, 0, 0, 52, 32, rows, 0, 0, 0
        )
    body = ident + rest + table + strings + name
    return body.ljust(dynamic_at, b"\0") + dynamic
