"""Reading logs in Docker's json-file format: whole, from the end, by time; rotated files included.

    for chunk in read_log(path, tail=100, framed=True):
        await response.write(chunk)

The fast path undoes what the writer did: entries of one read share all that stands between their texts,
so a run of them is one `bytes.replace` and one JSON string scan. Logs whose entries all differ go by
one regular expression, entries with attributes and odd ones by the JSON decoder, one at a time.
"""

from __future__ import annotations

import json
import os
import re
from json import decoder
from typing import TYPE_CHECKING, Any

from sampan.logs import rotation
from sampan.logs.frames import Framer, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 1 << 20
HEAD = b'{"log":"'
MIDDLE = b'","stream":"'
ATTRIBUTES = b',"attrs":'
ENTRY = re.compile(rb'\{"log":"(.*)","stream":"(stdout|stderr)","time":"([^"]*)"\}\n')
SHORT_RUN = 4  # runs below this cost more than the regular expression
REGEX_BYTES = 64 * 1024


def read_log(
    path: str,
    *,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    timestamps: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    framed: bool = False,
    frame_lines: bool = False,
    details: bool = False,
) -> Iterator[bytes]:
    """The log's text in chunks, oldest first; nothing for a log that is not there.

    `tail` counts entries of both streams, as dockerd does, before any other choice. `framed` puts
    Docker's 8-byte headers before the text, several lines of one stream in one frame, or with
    `frame_lines` one line a frame (for clients that take a frame for a line). Times are
    nanoseconds since 1970, `since_ns` and `until_ns` inclusive. A torn last entry is left out.
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
    files = rotation.open_files(path)
    try:
        for block in read_entries(files, tail):
            yield from renderer.render(block)
            if renderer.past_end:
                return
    finally:
        for fd, _ in files:
            os.close(fd)


def read_entries(files: list[tuple[int, bool]], tail: int | None = None) -> Iterator[bytes]:
    """Blocks of whole entries of the files, or of their last `tail` entries."""
    first, offset = (0, 0) if tail is None else find_tail(files, tail)
    for number in range(first, len(files)):
        fd, compressed = files[number]
        source = decompressed(fd) if compressed else plain_blocks(fd, offset)
        skip = offset if compressed else 0
        offset = 0
        yield from whole_entries(source, skip)


def find_tail(files: list[tuple[int, bool]], count: int) -> tuple[int, int]:
    """(file number, offset in its text) where the last `count` entries begin."""
    for number in range(len(files) - 1, -1, -1):
        fd, compressed = files[number]
        if compressed:
            ends = b"".join(decompressed(fd)).split(b"\n")
            present = len(ends) - 1
            if present >= count:
                return number, sum(len(entry) + 1 for entry in ends[: present - count])
        else:
            offset, present = tail_offset(fd, count)
            if present >= count:
                return number, offset
        count -= present
    return 0, 0


def tail_offset(fd: int, count: int) -> tuple[int, int]:
    """Where the last `count` complete entries of a file begin, and how many of them it has."""
    end = os.fstat(fd).st_size
    found = -1  # the newline that ends the last entry begins none
    while end > 0:
        start = max(0, end - BLOCK_BYTES // 16)
        block = os.pread(fd, end - start, start)
        newlines = block.count(b"\n")
        if found + newlines < count:
            found += newlines
            end = start
            continue
        position = len(block)
        while found < count:
            position = block.rfind(b"\n", 0, position)
            found += 1
        return start + position + 1, count
    return 0, found + 1 if found >= 0 else 0


def plain_blocks(fd: int, offset: int) -> Iterator[bytes]:
    while block := os.pread(fd, BLOCK_BYTES, offset):
        offset += len(block)
        yield block


def decompressed(fd: int) -> Iterator[bytes]:
    import zlib

    unpacker = zlib.decompressobj(31)
    for block in plain_blocks(fd, 0):
        yield unpacker.decompress(block)
    yield unpacker.flush()


def whole_entries(blocks: Iterator[bytes], skip: int = 0) -> Iterator[bytes]:
    """Blocks cut at entry ends, without the first `skip` bytes and without a torn last entry."""
    rest = b""
    for block in blocks:
        if skip:
            dropped = min(skip, len(block))
            skip -= dropped
            block = block[dropped:]
        cut = block.rfind(b"\n") + 1
        if not cut:
            rest += block
            continue
        yield rest + block[:cut] if rest else block[:cut]
        rest = block[cut:]


class Renderer:
    """Turns blocks of entries into what a client gets; keeps no text between blocks.

    `past_end` is set when an entry younger than `until_ns` was met: there is no more to come.
    """

    def __init__(
        self,
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
        timestamps: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        framed: bool = False,
        frame_lines: bool = False,
        details: bool = False,
    ) -> None:
        self.past_end = False
        self._since = format_time(since_ns) if since_ns else b""
        self._until = format_time(until_ns) if until_ns else b""
        self._timestamps = timestamps
        self._details = details
        self._streams = {b"stdout": stdout, b"stderr": stderr}
        self._framer = Framer(framed=framed, frame_lines=frame_lines)

    def render(self, block: bytes) -> Iterator[bytes]:
        """The text of a block of whole entries, in chunks."""
        if ATTRIBUTES in block or not block.startswith(HEAD):
            self._decode_each(block)
        else:
            self._render_runs(block)
        yield from self._framer.take()

    def _render_runs(self, block: bytes) -> None:
        position = 0
        while position < len(block) and not self.past_end:
            end, tail = find_run(block, position)
            if end and self._emit_run(block[position:end], tail):
                position = end
                continue
            end = block.rfind(b"\n", position, position + REGEX_BYTES) + 1
            if not end:
                end = block.index(b"\n", position) + 1
            self._render_each(block[position:end])
            position = end

    def _emit_run(self, run: bytes, tail: bytes) -> bool:
        """Emit entries that all end in `tail`; False when one is not what it looks like."""
        fields = ENTRY.fullmatch(HEAD + tail)
        if fields is None:
            return False
        lines = run.split(b"\n")  # not replace(tail, …): that prepares its search anew for each hit
        if run.count(tail) != len(lines) - 1:
            return False
        start, end = len(HEAD), 1 - len(tail)
        text = b"\n".join([line[start:end] for line in lines])  # the last one is empty
        if b"\\" in text:
            try:
                decoded, complete = scan_string(text)
            except ValueError:
                return False
            if not complete:
                return False
            text = encode(decoded)
        self._emit(fields[2], fields[3], text)
        return True

    def _render_each(self, entries: bytes) -> None:
        """Entries by the regular expression, if it takes them all."""
        matches = ENTRY.findall(entries)
        if len(matches) != entries.count(b"\n"):
            self._decode_each(entries)
            return
        for text, stream, at in matches:
            if text.endswith(b"\\n") and text.count(b"\\") == 1:
                self._emit(stream, at, text[:-2] + b"\n")
            elif b"\\" not in text:
                self._emit(stream, at, text)
            elif not self._emit_escaped(stream, at, text):
                self._decode_each(b'%b%b%b%b","time":"%b"}\n' % (HEAD, text, MIDDLE, stream, at))
            if self.past_end:
                return

    def _emit_escaped(self, stream: bytes, at: bytes, text: bytes) -> bool:
        try:
            decoded, complete = scan_string(text)
        except ValueError:
            return False
        if not complete:
            return False
        self._emit(stream, at, encode(decoded))
        return True

    def _decode_each(self, entries: bytes) -> None:
        """Entries by the JSON decoder; what is no entry is left out."""
        for line in entries[:-1].split(b"\n"):
            try:
                entry = json.loads(line)
                text, stream, at = entry["log"], entry["stream"], entry["time"]
            except (ValueError, KeyError, TypeError):
                continue
            prefix = details_prefix(entry.get("attrs")) if self._details else ""
            self._emit(stream.encode(), at.encode(), encode(prefix + text))
            if self.past_end:
                return

    def _emit(self, stream: bytes, at: bytes, text: bytes) -> None:
        """Hand on text of one stream and time: one entry, or many that end in newlines."""
        if self._since or self._until or self._timestamps:
            at = normal_time(at)
            if at < self._since:
                return
            if self._until and at > self._until:
                self.past_end = True
                return
        if not self._streams.get(stream, False):
            return
        if self._timestamps:
            prefix = at + b" "
            text = prefix + text[:-1].replace(b"\n", b"\n" + prefix) + text[-1:]
        self._framer.add(stream, text)


def find_run(block: bytes, position: int) -> tuple[int, bytes]:
    """(end, common tail) of entries from `position` that differ only in their text; (0, b"") for few."""
    newline = block.index(b"\n", position)
    cut = block.rfind(MIDDLE, position, newline)
    if cut < 0 or block[cut - 2 : cut] != b"\\n":
        return 0, b""
    tail = block[cut - 2 : newline + 1]
    window = 4096
    good = newline + 1
    while good < len(block):
        end = block.rfind(b"\n", good, good + window) + 1
        if not end or not block.startswith(tail, end - len(tail)):
            last = block.rfind(tail, good, good + window)
            good = last + len(tail) if last >= 0 else good
            break
        good = end
        window *= 2
    if good - position < SHORT_RUN * (newline + 1 - position):
        return 0, b""
    return good, tail


def normal_time(at: bytes) -> bytes:
    """RFC 3339 in UTC with nine digits, so that times compare as bytes; dockerd trims zeros."""
    if len(at) == 30:
        return at
    whole, _, fraction = at.removesuffix(b"Z").partition(b".")
    return whole + b"." + fraction.ljust(9, b"0") + b"Z"


def scan_string(text: bytes) -> tuple[str, bool]:
    """The inside of a JSON string decoded, and whether all of it was one string.

    Raises:
        ValueError: an escape or a character is wrong.
    """
    quoted = text.decode() + '"'
    decoded, end = decoder.scanstring(quoted, 0, False)  # type: ignore[attr-defined]
    return decoded, end == len(quoted)


def encode(text: str) -> bytes:
    """UTF-8; a lone surrogate of a foreign writer's escapes becomes `?`."""
    return text.encode("utf-8", "replace")


def details_prefix(attributes: Any) -> str:
    """`--details`: the attributes as dockerd prints them, sorted and quoted as in URLs: `a=b,c=d `."""
    if not isinstance(attributes, dict):
        return " "
    from urllib.parse import quote_plus

    pairs = (
        f"{quote_plus(name)}={quote_plus(str(attributes[name]))}" for name in sorted(attributes)
    )
    return ",".join(pairs) + " "
