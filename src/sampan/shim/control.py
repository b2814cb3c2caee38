"""A shim's or keeper's control connections: the one it was born with, and those that come to a socket."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque

from sampan.errors import RuntimeFailure, SampanError
from sampan.shim import protocol
from sampan.shim.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.shim.loop import Loop
    from sampan.shim.protocol import Message

    # (connection, request, its descriptors) → the answer's body; takes descriptors out that it keeps
    Handler = Callable[["Control", Message, list[int]], Message]

BACKLOG = 16


class Control:
    """One connection of a daemon. Nothing here waits: what it does not take is kept until it does."""

    __slots__ = ("_handle", "_loop", "_on_closed", "_outbox", "_sock", "_watched")

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        handle: Handler,
        on_closed: Callable[[Control], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._handle = handle
        self._on_closed = on_closed
        self._outbox: deque[tuple[Message, Sequence[int]]] = deque()
        self._watched = False

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    @property
    def has_unsent(self) -> bool:
        return bool(self._outbox)

    def watch(self) -> None:
        """Begin to take requests."""
        if self._sock is not None:
            self._loop.watch(self._sock.fileno(), READ, self._on_events)
            self._watched = True

    def send(self, kind: str, fds: Sequence[int] = (), **body: object) -> None:
        """Send an event or answer; lost when the daemon is gone, which learns it elsewhere.

        The descriptors stay the caller's, and open as long as the connection.
        """
        if self._sock is None:
            return
        self._outbox.append(({"type": kind, **body}, fds))
        if len(self._outbox) == 1:
            self._flush()

    def close(self) -> None:
        if self._sock is None:
            return
        if self._watched:
            self._loop.forget(self._sock.fileno())
        self._sock.close()
        self._sock = None
        self._outbox.clear()
        self._on_closed(self)

    def _flush(self) -> None:
        if self._sock is None:
            return
        try:
            while self._outbox:
                protocol.send(self._sock, *self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._watched:
            self._loop.change(self._sock.fileno(), READ | WRITE if self._outbox else READ)

    def _on_events(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & ~WRITE:
            self._receive()

    def _receive(self) -> None:
        if self._sock is None:
            return
        try:
            received = protocol.receive(self._sock)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self.close()
            return
        message, fds = received
        try:
            self._answer(message, fds)
        finally:
            protocol.close_all(fds)

    def _answer(self, message: Message, fds: list[int]) -> None:
        number = message.get("seq")
        try:
            body = self._handle(self, message, fds)
        except RuntimeFailure as failure:
            self.send("failed", seq=number, **protocol.failure_to_dict(failure))
        except (SampanError, OSError, KeyError, TypeError, ValueError) as error:
            self.send(
                "failed", seq=number, stage=message.get("type"), message=str(error) or repr(error)
            )
        else:
            self.send("answer", seq=number, **body)


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, in place of what a dead shim left there.

    Bound through its directory's descriptor, for sun_path takes 108 bytes only.
    """
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = os.path.basename(path)
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        sock = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            sock.bind(f"/proc/self/fd/{directory}/{name}")
            os.chmod(name, 0o600, dir_fd=directory)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(directory)


def accept(listener: socket.socket) -> socket.socket | None:
    """A new connection of our own user; others are sent away."""
    try:
        sock, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    _, uid, _ = struct.unpack(
        "iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    )
    if uid != os.geteuid():
        sock.close()
        return None
    return sock
