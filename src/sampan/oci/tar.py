"""Reading tar archives: ustar, PAX, GNU long names, sparse files.

A pure parser over a `read(n)` function. It accepts what GNU tar, bsdtar, Go's and Python's writers
make, and never trusts a length: hostile archives raise `BadArchive`.

Sources: POSIX.1-2017 pax "ustar Interchange Format"; GNU tar manual "Basic Tar Format", "Storing
Sparse Files"; OCI image-spec, layer.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from sampan.errors import InvalidArgument

Read = Callable[[int], bytes]
"""Up to n bytes, at least one except at the end."""

BLOCK = 512
CHUNK = 1 << 20
SPECIAL_MAX = 1 << 20
"""The longest extended header or long name, as in Go's archive/tar."""
SEGMENTS_MAX = 1 << 16
"""The most pieces of a sparse file: the map is kept in memory (CVE-2025-58183)."""

FILE, HARD_LINK, SYMLINK = b"0", b"1", b"2"
CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"3", b"4", b"5", b"6"
_GNU_SPARSE, _LONG_NAME, _LONG_LINK = b"S", b"L", b"K"
PAX_HEADER, _PAX_GLOBAL = b"x", b"g"
_WITHOUT_DATA = frozenset((HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
_KINDS = _WITHOUT_DATA | {FILE}

_XATTR = b"SCHILY.xattr."
_HEADER = struct.Struct("100s8s8s8s12s12s8ss100s8s32s32s8s8s155s12x")
_ZERO = bytes(BLOCK)
_CHECKSUM = slice(148, 156)


class BadArchive(InvalidArgument):
    """The bytes are no tar archive, or a damaged one."""


class Entry:
    """One member. Names are bytes as stored; `size` is the file's own size, holes included."""

    __slots__ = (
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "segments",
        "size",
        "stored_size",
        "uid",
        "xattrs",
    )

    def __init__(self, name: bytes, kind: bytes) -> None:
        self.name = name
        self.kind = kind
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.size = 0
        self.stored_size = 0
        self.mtime_ns = 0
        self.link = b""
        self.major = 0
        self.minor = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.segments: list[tuple[int, int]] | None = None  # (offset, length) of a sparse file

    @property
    def text_name(self) -> str:
        return self.name.decode("utf-8", "surrogateescape")


class TarReader:
    """Iterates over the entries of an archive, in order; `data()` streams the current one's bytes.

        for entry in TarReader(read):
            for piece in reader.data(): ...

    Bytes of an entry that nobody read are skipped.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._buffer = b""
        self._position = 0
        self._left = 0  # data bytes of the current entry not handed out yet
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> Entry | None:
        """The next entry, or None at the end mark (or at the end of the stream between entries)."""
        pax: dict[bytes, bytes] = {}
        sparse: list[tuple[bytes, bytes]] = []
        long_name = long_link = None
        while True:
            self._finish_entry()
            block = self._header_block()
            if block is None:
                return None
            entry = _parse_header(block)
            kind = entry.kind
            if kind == PAX_HEADER:
                pax, sparse = parse_pax(self._special(entry))
            elif kind == _PAX_GLOBAL:
                self._special(entry)
            elif kind == _LONG_NAME:
                long_name = self._special(entry).split(b"\0", 1)[0]
            elif kind == _LONG_LINK:
                long_link = self._special(entry).split(b"\0", 1)[0]
            else:
                break
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.link = long_link
        if pax:
            _apply_pax(entry, pax)
        self._begin_data(entry, kind)
        if kind == _GNU_SPARSE:
            self._old_gnu_sparse(entry, block)
        elif pax:
            self._pax_sparse(entry, pax, sparse)
        if entry.kind == FILE and entry.name.endswith(b"/") and not entry.size:
            entry.kind = DIRECTORY  # how V7 tar wrote one
        return entry

    def data(self) -> Iterator[memoryview]:
        """The current entry's stored bytes, in pieces (of a sparse file: without its holes)."""
        while self._left:
            if self._position == len(self._buffer):
                self._fill()
            piece = memoryview(self._buffer)[self._position : self._position + self._left]
            self._position += len(piece)
            self._left -= len(piece)
            yield piece

    def read_data(self, limit: int) -> bytes:
        """All bytes of the current entry.

        Raises:
            BadArchive: it is larger than `limit`.
        """
        if self._left > limit:
            raise BadArchive(f"archive member of {self._left} bytes, {limit} are allowed")
        return self._exact(self._left, data=True)

    def drain(self) -> None:
        """Read to the end of the stream, so that a digest covers what follows the end mark."""
        self._buffer = b""
        self._position = 0
        while self._read(CHUNK):
            pass

    def _fill(self) -> None:
        self._buffer = self._read(CHUNK)
        self._position = 0
        if not self._buffer:
            raise BadArchive("unexpected EOF")

    def _exact(self, count: int, *, data: bool = False) -> bytes:
        if data:
            self._left -= count
        end = self._position + count
        if end <= len(self._buffer):
            taken = self._buffer[self._position : end]
            self._position = end
            return taken
        parts = [self._buffer[self._position :]]
        count -= len(parts[0])
        while count:
            self._fill()
            parts.append(self._buffer[:count])
            self._position = len(parts[-1])
            count -= self._position
        return b"".join(parts)

    def _finish_entry(self) -> None:
        skip = self._left + self._padding
        self._left = self._padding = 0
        while skip:
            available = len(self._buffer) - self._position
            if available >= skip:
                self._position += skip
                return
            skip -= available
            self._fill()

    def _header_block(self) -> bytes | None:
        if self._position == len(self._buffer):
            self._buffer = self._read(CHUNK)
            self._position = 0
            if not self._buffer:
                return None
        block = self._exact(BLOCK)
        if block == _ZERO:
            return None
        return block

    def _special(self, entry: Entry) -> bytes:
        if entry.size > SPECIAL_MAX:
            raise BadArchive("archive/tar: header field too long")
        if entry.size < 0:  # would read the same header again, for ever
            raise BadArchive("archive/tar: invalid tar header")
        self._padding = -entry.size % BLOCK
        return self._exact(entry.size)

    def _begin_data(self, entry: Entry, kind: bytes) -> None:
        if kind == _GNU_SPARSE:
            entry.kind = kind = FILE
        if kind not in _KINDS:
            raise BadArchive(f"unhandled tar header type {kind[0]}")
        if kind in _WITHOUT_DATA:
            entry.size = 0
        if entry.size < 0:
            raise BadArchive("archive/tar: invalid tar header")
        entry.stored_size = self._left = entry.size
        self._padding = -entry.size % BLOCK

    def _old_gnu_sparse(self, entry: Entry, block: bytes) -> None:
        segments = _gnu_segments(block[386:482])
        size = _number(block[483:495])
        more = block[482]
        while more:
            extension = self._exact(BLOCK)
            segments += _gnu_segments(extension[:504])
            if len(segments) > SEGMENTS_MAX:
                raise BadArchive("archive/tar: sparse map too long")
            more = extension[504]
        _set_segments(entry, segments, size)

    def _pax_sparse(
        self, entry: Entry, pax: dict[bytes, bytes], sparse: list[tuple[bytes, bytes]]
    ) -> None:
        major, minor = pax.get(b"GNU.sparse.major"), pax.get(b"GNU.sparse.minor")
        if (major, minor) == (b"1", b"0"):
            segments = self._sparse_map_in_data()
            entry.stored_size = self._left
            size = _decimal(pax.get(b"GNU.sparse.realsize", b"0"))
        elif b"GNU.sparse.map" in pax:
            numbers = [_decimal(item) for item in pax[b"GNU.sparse.map"].split(b",") if item]
            segments = _pairs(numbers)
            size = _decimal(pax.get(b"GNU.sparse.size", b"0"))
        elif sparse:
            segments = _pairs([_decimal(value) for _, value in sparse])
            size = _decimal(pax.get(b"GNU.sparse.size", b"0"))
        else:
            return
        _set_segments(entry, segments, size)

    def _sparse_map_in_data(self) -> list[tuple[int, int]]:
        """PAX sparse format 1.0: decimal lines at the start of the data, padded to a block."""
        text = bytearray()
        wanted = lines = 0
        while not lines or lines < wanted:
            if self._left < BLOCK or len(text) > SPECIAL_MAX:
                raise BadArchive("archive/tar: invalid sparse map")
            block = self._exact(BLOCK, data=True)
            text += block
            lines += block.count(b"\n")
            if lines and not wanted:
                wanted = 1 + 2 * _decimal(bytes(text[: text.index(b"\n")]))
        return _pairs([_decimal(line) for line in bytes(text).split(b"\n")[1:wanted]])


def parse_pax(data: bytes) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Split an extended header into its records, and the (repeating) ones of sparse format 0.0."""
    records: dict[bytes, bytes] = {}
    sparse: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        length = _decimal(data[position:space]) if space > 0 else 0
        end = position + length
        if length < 5 or end > len(data) or data[end - 1] != 10 or end - 1 <= space:
            raise BadArchive("archive/tar: invalid PAX record")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise BadArchive("archive/tar: invalid PAX record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append((key, value))
        records[key] = value
        position = end
    return records, sparse


def _parse_header(block: bytes) -> Entry:
    fields = _HEADER.unpack(block)
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic = fields[:10]
    # A field of checksum spaces counts as 8 spaces: 256.
    if sum(block) - sum(block[_CHECKSUM]) + 256 != _number(checksum):
        raise BadArchive("archive/tar: invalid tar header")
    name = name.split(b"\0", 1)[0]
    prefix = fields[14].split(b"\0", 1)[0] if magic[:6] == b"ustar\0" else b""
    if prefix:
        name = prefix + b"/" + name
    if kind in (b"\0", b"7"):
        kind = FILE
    entry = Entry(name, kind)
    entry.mode = _number(mode) & 0o7777
    entry.uid = _number(uid)
    entry.gid = _number(gid)
    entry.size = _number(size)
    entry.mtime_ns = _number(mtime) * 1_000_000_000
    entry.link = link.split(b"\0", 1)[0]
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major = _number(fields[12])
        entry.minor = _number(fields[13])
    return entry


def _number(field: bytes) -> int:
    """An octal number, or GNU's base-256 when the top bit of the first byte is set."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise BadArchive("archive/tar: invalid tar header") from None


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise BadArchive("archive/tar: invalid PAX record")
    return int(text)


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    for key, value in pax.items():
        if not value and not key.startswith(_XATTR):
            continue  # POSIX: an empty value takes a global header's back
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = _decimal(value)
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"mtime":
            entry.mtime_ns = _pax_time(value)
        elif key == b"GNU.sparse.name":
            entry.name = value
        elif key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
    if b"GNU.sparse.name" in pax:
        entry.name = pax[b"GNU.sparse.name"]


def _pax_time(value: bytes) -> int:
    """Seconds with an optional fraction, to nanoseconds."""
    sign = -1 if value.startswith(b"-") else 1
    seconds, _, fraction = value.lstrip(b"-").partition(b".")
    whole = _decimal(seconds or b"0") * 1_000_000_000
    return sign * (whole + _decimal((fraction[:9] or b"0").ljust(9, b"0")))


def _gnu_segments(field: bytes) -> list[tuple[int, int]]:
    segments = []
    for at in range(0, len(field) - 23, 24):
        if not field[at]:
            break
        segments.append((_number(field[at : at + 12]), _number(field[at + 12 : at + 24])))
    return segments


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    if len(numbers) % 2 or len(numbers) > 2 * SEGMENTS_MAX:
        raise BadArchive("archive/tar: invalid sparse map")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _set_segments(entry: Entry, segments: list[tuple[int, int]], size: int) -> None:
    position = stored = 0
    for offset, length in segments:
        if offset < position or length < 0:
            raise BadArchive("archive/tar: invalid sparse map")
        position = offset + length
        stored += length
    if position > size or stored != entry.stored_size or size >= 1 << 63:
        raise BadArchive("archive/tar: invalid sparse map")
    entry.segments = segments
    entry.size = size
