"""A container's streams at this process's own: multiplexed output, terminals, signals.

The multiplexed form is Docker's: frames of an 8-byte head (stream number, three zeros, length big
endian) and a payload. A terminal's stream is raw. Everything waits in one poll(2) loop: the socket,
standard input, and a pipe on which caught signals arrive as bytes.

Source: Engine API description, "Stream format" of ContainerAttach.
"""

from __future__ import annotations

import os
import select

from sampan.cli import signals
from sampan.cli.terminal import RawTerminal, Signals, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sampan.cli.client import Connection

CHUNK_BYTES = 1 << 18
HEAD_BYTES = 8
DETACH_KEYS = "ctrl-p,ctrl-q"


class Output:
    """Where output goes: bytes as they are, or multiplexed frames taken apart to fds 1 and 2."""

    def __init__(self, *, raw: bool, stdout: int = 1, stderr: int = 2) -> None:
        self._raw = raw
        self._targets = {0: stdout, 1: stdout, 2: stderr}
        self._head = b""  # of a frame whose head is not complete
        self._target = stdout
        self._left = 0  # of the frame that is being written

    def feed(self, data: bytes) -> None:
        """Write what has come, frames that are not complete included."""
        if self._raw:
            write_all(1, data)
            return
        parts: list[memoryview] = []
        view = memoryview(self._head + data if self._head else data)
        size, position = len(view), 0
        while True:
            if self._left:
                part = view[position : position + self._left]
                position += len(part)
                self._left -= len(part)
                parts.append(part)
            if position + HEAD_BYTES > size:
                break
            target = self._targets.get(view[position], 2)
            if target != self._target:
                self._write(parts)
                self._target = target
            self._left = int.from_bytes(view[position + 4 : position + 8], "big")
            position += HEAD_BYTES
        self._write(parts)
        self._head = bytes(view[position:])

    def _write(self, parts: list[memoryview]) -> None:
        if parts:
            write_all(self._target, b"".join(parts))
            parts.clear()


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, also to an fd that somebody else made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def copy_out(chunks: Iterable[bytes], *, raw: bool) -> None:
    """Write a body of container output to standard output and standard error."""
    output = Output(raw=raw)
    for chunk in chunks:
        output.feed(chunk)


def parse_detach_keys(text: str) -> bytes:
    """The key sequence as bytes: letters and `ctrl-X`, parted by commas.

    Raises:
        ValueError: a part names no key.
    """
    keys = bytearray()
    for part in text.split(","):
        if len(part) == 1 and part.isascii():
            keys.append(ord(part))
        elif (
            part.startswith("ctrl-")
            and len(part) == 6
            and part[5] in "@abcdefghijklmnopqrstuvwxyz[\\]^_"
        ):
            keys.append(ord(part[5]) & 0x1F)
        else:
            raise ValueError(f"Unknown character: '{part}'")
    return bytes(keys)


class DetachFilter:
    """Finds the detach sequence in what is typed; keys that might begin it are held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on of `data`, and whether the sequence is complete."""
        keys = self._keys
        out = bytearray()
        for byte in data:
            if byte == keys[self._seen]:
                self._seen += 1
                if self._seen == len(keys):
                    return bytes(out), True
                continue
            out += keys[: self._seen]
            self._seen = 0
            if byte == keys[0]:
                self._seen = 1
            else:
                out.append(byte)
        return bytes(out), False


class Session:
    """One hijacked stream between a container's process and this process's own stdio.

    `stdin`: pass standard input on. `keys`: the detach sequence, b"" for none. `on_signal` is called
    with each signal of `caught`; `on_resize` with rows and columns, when the terminal has another size.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        tty: bool,
        stdin: bool,
        keys: bytes = b"",
        caught: Iterable[int] = (),
        on_signal: Callable[[int], None] | None = None,
        on_resize: Callable[[int, int], None] | None = None,
    ) -> None:
        self._connection = connection
        self._output = Output(raw=tty)
        self._stdin = stdin
        self._filter = DetachFilter(keys) if keys and tty else None
        self._signals = set(caught)
        self._on_signal = on_signal
        self._on_resize = on_resize
        self._tty = tty
        self._unsent = b""
        self._listening = stdin
        if on_resize is not None:
            self._signals.add(signals.raw.SIGWINCH)

    def run(self, started: Callable[[], None] | None = None) -> bool:
        """Copy until the stream ends (True) or the user detached (False).

        `started` is called once the terminal and the signals are set up, before the first copy.
        """
        with Signals(self._signals) as caught, RawTerminal(self._tty and self._stdin):
            if started is not None:
                started()
            if self._on_resize is not None:
                self._resize()
            self._connection.sock.setblocking(False)
            return self._loop(caught)

    def _loop(self, caught: Signals) -> bool:
        sock = self._connection.sock.fileno()
        if self._connection.buffer:
            self._output.feed(self._connection.buffer)
            self._connection.buffer = b""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if caught.fd >= 0:
            poll.register(caught.fd, select.POLLIN)
        if self._stdin:
            poll.register(0, select.POLLIN)
        while True:
            for fd, event in poll.poll():
                if fd == caught.fd:
                    self._signalled(caught)
                elif fd == 0 and fd != sock:
                    if self._typed():
                        return False
                elif event & select.POLLOUT and self._unsent:
                    self._send()
                elif not self._received():
                    return True
            self._rearm(poll, sock)

    def _rearm(self, poll: select.poll, sock: int) -> None:
        """Read standard input only when what was read before has gone out."""
        poll.modify(sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        wanted = self._stdin and not self._unsent
        if wanted and not self._listening:
            poll.register(0, select.POLLIN)
        elif self._listening and not wanted:
            poll.unregister(0)
        self._listening = wanted

    def _received(self) -> bool:
        try:
            data = self._connection.sock.recv(CHUNK_BYTES)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if not data:
            return False
        self._output.feed(data)
        return True

    def _typed(self) -> bool:
        """Take standard input up; True when the detach sequence is complete."""
        try:
            data = os.read(0, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the terminal went away
            data = b""
        detached = False
        if not data:
            self._stdin = False
        elif self._filter is not None:
            data, detached = self._filter.feed(data)
        self._unsent += data
        self._send()
        return detached

    def _send(self) -> None:
        sock = self._connection.sock
        try:
            while self._unsent:
                self._unsent = self._unsent[sock.send(self._unsent) :]
            if not self._stdin:
                sock.shutdown(1)  # SHUT_WR: the process sees the end of its input
        except BlockingIOError:
            return
        except OSError:  # the process is gone; its last output may still be in the socket
            self._unsent = b""
            self._stdin = False

    def _signalled(self, caught: Signals) -> None:
        for number in caught.taken():
            if number == signals.raw.SIGWINCH and self._on_resize is not None:
                self._resize()
            elif self._on_signal is not None:
                self._on_signal(number)

    def _resize(self) -> None:
        size = window_size(1)
        if size is not None and self._on_resize is not None and size != (0, 0):
            self._on_resize(*size)


def detach_keys(text: str) -> bytes:
    """The `--detach-keys` value as bytes, the usual sequence for "".

    Raises:
        CommandError: a part names no key.
    """
    try:
        return parse_detach_keys(text or DETACH_KEYS)
    except ValueError as error:
        from sampan.cli.failures import CommandError

        raise CommandError(f"invalid detach keys ({text}): {error}") from None
