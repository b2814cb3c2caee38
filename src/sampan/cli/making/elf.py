"""What an ELF file says about how it is loaded: interpreter, needed libraries, where to look for them.

Nothing is executed: `ldd` runs the program's own interpreter, which may be anybody's. A file that lies
about its insides gives an error, whatever it says.

Source: System V ABI, "Program Loading and Dynamic Linking"; elf(5).
"""

from __future__ import annotations

import os
import struct

MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 0, 1, 5, 10
_DT_SONAME, _DT_RPATH, _DT_RUNPATH, _DT_FLAGS_1 = 14, 15, 29, 0x6FFFFFFB
_DF_1_NODEFLIB = 0x800
_ET_EXEC, _ET_DYN = 2, 3
_DYNAMIC_BYTES_MAX = 1 << 20
_STRINGS_BYTES_MAX = 64 << 20
_PATH_BYTES_MAX = 4096


class BadElf(ValueError):
    """The file begins like ELF, and is damaged."""


class Elf:
    """An executable or a shared library.

    `kind` is what two files must have in common to be loaded together: class, byte order, machine.
    `rpath` and `runpath` are unexpanded lists of directories; a file with a runpath has no say in
    where the libraries of its libraries are.
    """

    __slots__ = ("interpreter", "kind", "needed", "no_default", "rpath", "runpath", "soname")

    def __init__(self, kind: tuple[int, int, int]) -> None:
        self.kind = kind
        self.interpreter = ""
        self.needed: list[str] = []
        self.soname = ""
        self.rpath: list[str] = []
        self.runpath: list[str] = []
        self.no_default = False

    @property
    def bits(self) -> int:
        return 64 if self.kind[0] == 2 else 32


def read(path: str) -> Elf | None:
    """The ELF file at `path`, links followed; None for a file of another kind.

    Raises:
        BadElf: it is damaged.
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        start = os.pread(fd, 64, 0)
        if start[:4] != MAGIC:
            return None
        try:
            return _read(fd, start)
        except (struct.error, IndexError, OverflowError) as error:
            raise BadElf(f"{path}: damaged ELF file: {error}") from None
        except BadElf as error:
            raise BadElf(f"{path}: damaged ELF file: {error}") from None
    finally:
        os.close(fd)


def _read(fd: int, start: bytes) -> Elf | None:
    wide = start[4] == 2
    order = ">" if start[5] == 2 else "<"
    kind, machine = struct.unpack_from(order + "HH", start, 16)
    if kind not in (_ET_EXEC, _ET_DYN):
        return None  # an object file or a core
    elf = Elf((start[4], start[5], machine))
    loads, dynamic, interpreter = _segments(fd, start, order, wide)
    if interpreter is not None:
        elf.interpreter = _path(_exact(fd, min(interpreter[1], _PATH_BYTES_MAX), interpreter[0]))
    if dynamic is not None:
        _read_dynamic(fd, elf, dynamic, loads, order + ("qQ" if wide else "iI"))
    return elf


Segment = tuple[int, int, int]
"""(file offset, bytes in the file, virtual address)"""


def _segments(
    fd: int, start: bytes, order: str, wide: bool
) -> tuple[list[Segment], Segment | None, Segment | None]:
    """The loaded segments, the dynamic section, the interpreter's name."""
    if wide:
        (table,) = struct.unpack_from(order + "Q", start, 32)
        size, count = struct.unpack_from(order + "HH", start, 54)
    else:
        (table,) = struct.unpack_from(order + "I", start, 28)
        size, count = struct.unpack_from(order + "HH", start, 42)
    row = struct.Struct(order + ("IIQQQQ" if wide else "IIIII"))
    if size < row.size:
        raise BadElf("program headers are too short")
    headers = _exact(fd, size * count, table)
    loads: list[Segment] = []
    dynamic = interpreter = None
    for number in range(count):
        fields = row.unpack_from(headers, number * size)
        if wide:
            kind, _, offset, address, _, length = fields
        else:
            kind, offset, address, _, length = fields
        segment = (offset, length, address)
        if kind == _PT_LOAD:
            loads.append(segment)
        elif kind == _PT_DYNAMIC:
            dynamic = segment
        elif kind == _PT_INTERP:
            interpreter = segment
    return loads, dynamic, interpreter


def _read_dynamic(fd: int, elf: Elf, section: Segment, loads: list[Segment], form: str) -> None:
    data = _exact(fd, min(section[1], _DYNAMIC_BYTES_MAX), section[0])
    row = struct.Struct(form)
    table = size = 0
    names: list[tuple[int, int]] = []
    for tag, value in row.iter_unpack(data[: len(data) - len(data) % row.size]):
        if tag == _DT_NULL:
            break
        if tag == _DT_STRTAB:
            table = value
        elif tag == _DT_STRSZ:
            size = value
        elif tag == _DT_FLAGS_1:
            elf.no_default = bool(value & _DF_1_NODEFLIB)
        elif tag in (_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH):
            names.append((tag, value))
    if not names:
        return
    if size > _STRINGS_BYTES_MAX:
        raise BadElf("string table too long")
    start = _file_offset(table, loads)
    for tag, offset in names:
        if offset >= size:
            raise BadElf("a name outside of the string table")
        length = min(size - offset, _PATH_BYTES_MAX * 4)
        _store(elf, tag, _path(_exact(fd, length, start + offset)))


def _store(elf: Elf, tag: int, text: str) -> None:
    if tag == _DT_NEEDED:
        elf.needed.append(text)
    elif tag == _DT_SONAME:
        elf.soname = text
    elif tag == _DT_RPATH:
        elf.rpath = [part for part in text.split(":") if part]
    else:
        elf.runpath = [part for part in text.split(":") if part]


def _file_offset(address: int, loads: list[Segment]) -> int:
    for offset, length, start in loads:
        if start <= address < start + length:
            return offset + address - start
    raise BadElf("a table outside of the file")


def _exact(fd: int, size: int, offset: int) -> bytes:
    if offset >= 1 << 62:
        raise BadElf("an offset outside of the file")
    data = os.pread(fd, size, offset)
    if len(data) < size:
        raise BadElf("it ends too early")
    return data


def _path(data: bytes) -> str:
    name, end, _ = data.partition(b"\0")
    if not end:
        raise BadElf("a name without an end")
    return os.fsdecode(name)
