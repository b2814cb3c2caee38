"""A client's socket in the shim: output to it, framed or raw; input from it, with detach keys."""

from __future__ import annotations

import os
import socket
from binascii import a2b_base64
from collections import deque

from sampan.shim.loop import BROKEN, READ, WRITE
from sampan.shim.protocol import CLOSED, DETACHED, ENDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.shim.loop import Loop
    from sampan.shim.protocol import StreamOptions
    from sampan.shim.stdio import Stdio

INPUT_BYTES = 32 * 1024
STDOUT = 1
STDERR = 2
HEADERS = {STDOUT: b"\1\0\0\0", STDERR: b"\2\0\0\0"}  # Engine API, ContainerAttach, "Stream format"


class Client:
    """One attached client.

    Lives until its process ended and it has taken all output (ENDED), it typed the detach keys
    (DETACHED), or closed what keeps it attached (CLOSED); `on_end` is then called once.
    """

    __slots__ = (
        "_detach",
        "_events",
        "_finishing",
        "_loop",
        "_on_end",
        "_pending",
        "_reading",
        "_sock",
        "_stdio",
        "head",
        "options",
        "pending_bytes",
    )

    def __init__(
        self,
        loop: Loop,
        fd: int,
        options: StreamOptions,
        stdio: Stdio,
        on_end: Callable[[str], None],
    ) -> None:
        """Own the socket `fd` and start to serve it."""
        self._loop = loop
        self._sock: socket.socket | None = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._stdio = stdio
        self._on_end = on_end
        self._pending: deque[bytes | memoryview] = deque()
        self._finishing = ""
        self._events = 0
        self.options = options
        self.pending_bytes = 0
        self.head = a2b_base64(options.head)
        self._reading = options.stdin
        keys = bytes.fromhex(options.detach_keys) if options.raw else b""
        self._detach = DetachKeys(keys) if keys else None
        loop.watch(fd, 0, self._on_events)

    def begin(self) -> None:
        """Start taking input, first what came with the hand-over."""
        if self._reading and self.head:
            self._take_input(self.head)
        self.head = b""
        self.update()

    def send(self, number: int, chunk: bytes) -> None:
        """Send output of stream `number` now, or keep what the socket does not take."""
        if self._sock is None or self._finishing:
            return
        if not (self.options.stdout if number == STDOUT else self.options.stderr):
            return
        if self.options.raw:
            parts: list[bytes] = [chunk]
            total = len(chunk)
        else:
            parts = [HEADERS[number] + len(chunk).to_bytes(4, "big"), chunk]
            total = len(chunk) + 8
        sent = 0
        if not self._pending:
            try:
                sent = self._sock.sendmsg(parts, (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                pass
            except OSError:
                self.close(CLOSED)
                return
        if sent < total:
            self._keep(parts, sent)

    def _keep(self, parts: list[bytes], sent: int) -> None:
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
                continue
            rest = memoryview(part)[sent:] if sent else part
            sent = 0
            self._pending.append(rest)
            self.pending_bytes += len(rest)
        self.update()

    def finish(self, reason: str = ENDED) -> None:
        """No more output comes: close when all is sent."""
        if self._sock is None or self._finishing:
            return
        self._finishing = reason
        if self._pending:
            self.update()
        else:
            self.close(reason)

    def close(self, reason: str) -> None:
        """Close at once and say so."""
        if self._sock is None:
            return
        sock, self._sock = self._sock, None
        self._loop.forget(sock.fileno())
        self._on_end(self._finishing or reason)  # the daemon knows before the client can ask it
        shut_down(sock)
        sock.close()
        self._pending.clear()
        self.pending_bytes = 0
        self._stdio.client_ended(self)

    def update(self) -> None:
        """Watch for what is wanted now: input while the process has room for it."""
        if self._sock is None:
            return
        events = WRITE if self._pending else 0
        if self._reading and not self._finishing and self._stdio.wants_input:
            events |= READ
        if events != self._events:
            self._events = events
            self._loop.change(self._sock.fileno(), events)

    def _on_events(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and self._reading:
            self._read()
        elif events & BROKEN:
            self.close(CLOSED)

    def _flush(self) -> None:
        if self._sock is None:
            return
        try:
            while self._pending:
                sent = self._sock.send(self._pending[0], socket.MSG_NOSIGNAL)
                self.pending_bytes -= sent
                if sent < len(self._pending[0]):
                    self._pending[0] = memoryview(self._pending[0])[sent:]
                else:
                    self._pending.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.close(CLOSED)
            return
        if not self._pending and self._finishing:
            self.close(self._finishing)
            return
        self.update()
        self._stdio.client_took(self)

    def _read(self) -> None:
        if self._sock is None:
            return
        try:
            data = self._sock.recv(INPUT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close(CLOSED)
            return
        if data:
            self._take_input(data)
        else:
            self._reading = False
            self._input_ended()
        self.update()

    def _take_input(self, data: bytes) -> None:
        detached = False
        if self._detach is not None:
            data, detached = self._detach.feed(data)
        if data:
            self._stdio.feed(data)
        if detached:
            self._reading = False
            self.finish(DETACHED)

    def _input_ended(self) -> None:
        """As dockerd: where the end of input is the process's own, it is passed on and output goes on;
        otherwise the client is taken to have left."""
        if self._stdio.passes_end_of_input:
            self._stdio.end_input()
        else:
            self.finish(CLOSED)


class DetachKeys:
    """Finds the key sequence in input that comes in any pieces."""

    __slots__ = ("_keys", "_matched")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(input to pass on, whether the sequence is complete); a started sequence is held back."""
        text = self._keys[: self._matched] + data
        end = text.find(self._keys)
        if end >= 0:
            return text[:end], True
        for length in range(min(len(self._keys) - 1, len(text)), 0, -1):
            if text.endswith(self._keys[:length]):
                self._matched = length
                return text[:-length], False
        self._matched = 0
        return text, False


def shut_down(sock: socket.socket) -> None:
    """End the connection for every process that has the socket: the API server may keep a copy.

    Input that nobody took is read first: closing a TCP socket with unread data resets the connection,
    and the client could lose the end of its output.
    """
    try:
        while sock.recv(INPUT_BYTES):
            pass
    except OSError:
        pass  # EAGAIN, mostly; a broken connection needs no more care
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # ENOTCONN: the client was faster


def write_some(fd: int, data: memoryview) -> int:
    """write(2) that answers 0 when there is no room."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
