"""Writing tar headers: ustar, with PAX records where ustar has no room."""

from __future__ import annotations

from sampan.oci.tar import BLOCK, DIRECTORY, FILE, PAX_HEADER, Entry

END = bytes(2 * BLOCK)
"""The end mark."""
_OCTAL_SIZE_MAX = 8**11
_OCTAL_ID_MAX = 8**7


def header(entry: Entry) -> bytes:
    """The header block of an entry, preceded by an extended header where it needs one."""
    records = _pax_records(entry)
    block = _ustar(entry, entry.kind)
    if not records:
        return block
    body = b"".join(_record(key, value) for key, value in records)
    extended = Entry(b"PaxHeaders.0/" + entry.name[-80:].strip(b"/"), PAX_HEADER)
    extended.mode = 0o644
    extended.size = len(body)
    return _ustar(extended, PAX_HEADER) + body + padding(len(body)) + block


def padding(size: int) -> bytes:
    """What follows `size` bytes of data up to the next block."""
    return bytes(-size % BLOCK)


def file_entry(name: str, size: int, *, mode: int = 0o644, mtime_ns: int = 0) -> Entry:
    entry = Entry(name.encode(), FILE)
    entry.size = size
    entry.mode = mode
    entry.mtime_ns = mtime_ns
    return entry


def directory_entry(name: str, *, mode: int = 0o755, mtime_ns: int = 0) -> Entry:
    entry = Entry(name.rstrip("/").encode() + b"/", DIRECTORY)
    entry.mode = mode
    entry.mtime_ns = mtime_ns
    return entry


def _ustar(entry: Entry, kind: bytes) -> bytes:
    size = entry.size if kind in (FILE, PAX_HEADER) else 0
    block = bytearray(
        b"%-100b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%-100bustar\x0000"
        % (
            entry.name[:100],
            entry.mode & 0o7777,
            entry.uid if 0 <= entry.uid < _OCTAL_ID_MAX else 0,
            entry.gid if 0 <= entry.gid < _OCTAL_ID_MAX else 0,
            size if size < _OCTAL_SIZE_MAX else 0,
            min(max(entry.mtime_ns // 1_000_000_000, 0), _OCTAL_SIZE_MAX - 1),
            kind,
            entry.link[:100],
        )
    )
    block[:100] = entry.name[:100].ljust(100, b"\0")
    block[157:257] = entry.link[:100].ljust(100, b"\0")
    block.extend(bytes(329 - len(block)))
    block.extend(b"%07o\0%07o\0" % (entry.major, entry.minor))
    block.extend(bytes(BLOCK - len(block)))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax_records(entry: Entry) -> list[tuple[bytes, bytes]]:
    records = []
    if len(entry.name) > 100:
        records.append((b"path", entry.name))
    if len(entry.link) > 100:
        records.append((b"linkpath", entry.link))
    if entry.size >= _OCTAL_SIZE_MAX:
        records.append((b"size", b"%d" % entry.size))
    seconds, nanoseconds = divmod(abs(entry.mtime_ns), 1_000_000_000)
    if nanoseconds or entry.mtime_ns < 0 or seconds >= _OCTAL_SIZE_MAX:
        sign = b"-" if entry.mtime_ns < 0 else b""
        fraction = b".%09d" % nanoseconds if nanoseconds else b""
        records.append((b"mtime", b"%b%d%b" % (sign, seconds, fraction)))
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number >= _OCTAL_ID_MAX:
            records.append((key, b"%d" % number))
    records += [(b"SCHILY.xattr." + name, value) for name, value in entry.xattrs.items()]
    return records


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)
