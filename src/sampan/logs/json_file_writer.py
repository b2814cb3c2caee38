"""The json-file driver's writer: Docker's format, at the speed of C.

Entries look like `{"log":"text\\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`. All lines of
one read carry one time stamp, so what stands between two lines is the same bytes, and a whole read of
many thousand lines becomes entries by one `bytes.replace`.

As in dockerd a line longer than 16 KiB becomes several entries, of which only the last ends in `\\n`; but
they are cut between characters. Text that is not UTF-8 gets U+FFFD for each bad byte.

Source: what dockerd 20.10 writes; its `<`, `>`, `&`, U+2028 and U+2029 are escaped too.
"""

from __future__ import annotations

import codecs
import os
import time

from sampan.logs import rotation
from sampan.logs.options import JSONFileOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PARTIAL_BYTES = 16 * 1024
HEAD = b'{"log":"'
ESCAPED = b'"\\<>&' + bytes(code for code in range(0x20) if code != 0x0A)
PLAIN = bytes(code for code in range(0x100) if code not in ESCAPED)
SHORT = {0x22: b'\\"', 0x5C: b"\\\\", 0x0D: b"\\r"}
ESCAPES = {code: SHORT.get(code, b"\\u%04x" % code) for code in ESCAPED}
LINE_SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
BACKSLASH = 0x5C


def replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    """U+FFFD for every byte of a bad sequence, as Go's decoder counts them."""
    assert isinstance(error, UnicodeDecodeError)
    return "\\ufffd" * (error.end - error.start), error.end


codecs.register_error("sampan-json-log", replace_each_byte)


class JSONFileWriter:
    """Appends one container's output to its log; see `drivers.LogWriter`."""

    def __init__(self, path: str, options: Mapping[str, str]) -> None:
        """Open (or make) the log at `path`; a line that a crash tore is cut off.

        Raises:
            InvalidArgument: an option the driver cannot take.
            OSError: the file cannot be opened.
        """
        parsed = JSONFileOptions(options)
        self._path = path
        self._max_size = parsed.max_size_bytes
        self._max_files = parsed.max_files
        self._compress = parsed.compress
        self._attrs = b',"attrs":' + parsed.attrs.encode() if parsed.attrs else b""
        self._held = {"stdout": b"", "stderr": b""}
        self._second = 0
        self._second_text = b""
        self._fd = open_log(path)
        self._size = mend(self._fd)

    def write(self, stream: str, chunk: bytes) -> None:
        """Log what one read returned; a last line without its end is held for the next call.

        Raises:
            OSError: the entries could not be written and are lost; the file is as before.
        """
        held = self._held[stream]
        data = held + chunk if held else chunk
        cut = data.rfind(b"\n") + 1
        rest = data[cut:]
        end = self._entry_end(stream)
        parts: list[bytes] = []
        if cut:
            add_lines(parts, data[:cut] if rest else data, end)
        if len(rest) >= PARTIAL_BYTES:
            rest = add_partials(parts, rest, end)
        self._held[stream] = rest
        if parts:
            self._append(parts)

    def finish(self, stream: str) -> None:
        """The stream has ended: write the line that never got its end, without one.

        Raises:
            OSError: as `write`.
        """
        rest = self._held[stream]
        self._held[stream] = b""
        if rest:
            self._append([HEAD, escape(rest), b'"', self._entry_end(stream)])

    def close(self) -> None:
        os.close(self._fd)

    def _entry_end(self, stream: str) -> bytes:
        """What follows the text's closing quote, with the present time."""
        now = time.time_ns()
        second, nanoseconds = divmod(now, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b',"stream":"%b"%b,"time":"%b.%09dZ"}\n' % (
            stream.encode(),
            self._attrs,
            self._second_text,
            nanoseconds,
        )

    def _append(self, parts: list[bytes]) -> None:
        data = b"".join(parts)
        if not self._max_size:
            self._write_all(data)
            return
        view = memoryview(data)
        start = 0
        while start < len(data):
            room = self._max_size - self._size
            if room <= 0:
                self._rotate()
                continue
            # As dockerd: the entry that crosses the limit still goes into the old file.
            end = data.find(b"\n", min(start + room - 1, len(data) - 1)) + 1
            self._write_all(view[start:end])
            start = end

    def _write_all(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            try:
                os.ftruncate(self._fd, self._size)  # no half entry stays
            except OSError as second:  # EINVAL for what is no file
                error.add_note(f"ftruncate: {second}")
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        rotation.rotate(self._path, self._max_files, compress=self._compress)
        os.close(self._fd)
        self._fd = open_log(self._path)
        self._size = os.fstat(self._fd).st_size


def add_lines(parts: list[bytes], lines: bytes, end: bytes) -> None:
    """Entries of complete `lines` (each ends in a newline, the last one too)."""
    if has_long_line(lines):
        add_long_lines(parts, lines, end)
        return
    line_end = b'\\n"' + end
    body = escape(lines)[:-1].replace(b"\n", line_end + HEAD)
    parts += (HEAD, body, line_end)


def add_long_lines(parts: list[bytes], lines: bytes, end: bytes) -> None:
    for text in lines[:-1].split(b"\n"):
        rest = text if len(text) < PARTIAL_BYTES else add_partials(parts, text, end)
        parts += (HEAD, escape(rest), b'\\n"', end)


def add_partials(parts: list[bytes], text: bytes, end: bytes) -> bytes:
    """Entries of 16 KiB of `text`, which has no newline; what is left is shorter than that."""
    start = 0
    while len(text) - start >= PARTIAL_BYTES:
        cut = character_start(text, start + PARTIAL_BYTES)
        parts += (HEAD, escape(text[start:cut]), b'"', end)
        start = cut
    return text[start:]


def character_start(text: bytes, at: int) -> int:
    """The last position ≤ `at` that does not cut a UTF-8 character; `at` where it is no UTF-8."""
    for back in (1, 2, 3):
        byte = text[at - back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return at - back if length > back else at
    return at


def has_long_line(lines: bytes) -> bool:
    position = 0
    last = len(lines) - 1
    while last - position >= PARTIAL_BYTES:
        newline = lines.rfind(b"\n", position, position + PARTIAL_BYTES)
        if newline < 0:
            return True
        position = newline + 1
    return False


def escape(text: bytes) -> bytes:
    """`text` as the inside of a JSON string, newlines left as they are."""
    odd = text.translate(None, PLAIN)
    if odd:
        codes = set(odd)
        if BACKSLASH in codes:  # first, for the others bring backslashes
            codes.discard(BACKSLASH)
            text = text.replace(b"\\", b"\\\\")
        for code in codes:
            text = text.replace(bytes((code,)), ESCAPES[code])
    if not text.isascii():
        text = text.decode("utf-8", "sampan-json-log").encode()
        for character, escaped in LINE_SEPARATORS:
            text = text.replace(character, escaped)
    return text


def open_log(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def mend(fd: int) -> int:
    """Cut off a last line that has no end; the size then."""
    size = os.fstat(fd).st_size
    end = size
    while end:
        start = max(0, end - 65536)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
    return end
