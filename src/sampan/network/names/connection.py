"""A container's TCP connection: questions with their length before them; see RFC 7766."""

from __future__ import annotations

import _socket

from sampan.network.names.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sampan.network.names.loop import Loop, Patience

    class Serve(Protocol):
        def __call__(
            self, query: bytes, reply: Callable[[bytes], None], *, tcp: bool = False
        ) -> None: ...


OUTSTANDING_MAX = 16  # questions of a connection that are not answered yet; more wait in its socket
_UNSENT_MAX = 256 * 1024
_CHUNK_BYTES = 16 * 1024


class Connection:
    """Serves one connection until it is closed, or idle for too long."""

    def __init__(
        self,
        loop: Loop,
        idle: Patience,
        sock: _socket.socket,
        serve: Serve,
        on_close: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._idle = idle
        self._sock: _socket.socket | None = sock
        self._serve = serve
        self._on_close = on_close
        self._incoming = b""
        self._unsent = b""
        self._outstanding = 0
        self._ended = False
        self._used = False
        self._events = READ
        loop.watch(sock.fileno(), self._on_ready)
        idle.begin(self._idle_for_long)

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.forget(sock.fileno())
            sock.close()
            self._on_close(self)

    def _idle_for_long(self) -> None:
        if self._sock is None:
            return
        if self._used:
            self._used = False
            self._idle.begin(self._idle_for_long)
        else:
            self.close()

    def _on_ready(self) -> None:
        if not self._events:  # epoll tells of nothing else then: the container broke it off
            self.close()
            return
        if self._unsent:
            self._flush()
        if self._events & READ:
            self._read()

    def _read(self) -> None:
        if self._sock is None:
            return
        try:
            chunk = self._sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._ended = not chunk
        self._incoming += chunk
        self._take_questions()

    def _take_questions(self) -> None:
        while self._outstanding < OUTSTANDING_MAX and self._sock is not None:
            size = int.from_bytes(self._incoming[:2], "big")
            if len(self._incoming) < max(2, size + 2):
                break
            query, self._incoming = self._incoming[2 : size + 2], self._incoming[size + 2 :]
            self._used = True
            self._outstanding += 1
            self._serve(query, self._reply, tcp=True)
        self._update()

    def _reply(self, answer: bytes) -> None:
        self._outstanding -= 1
        if self._sock is None:
            return
        self._unsent += len(answer).to_bytes(2, "big") + answer
        if len(self._unsent) > _UNSENT_MAX:
            self.close()
            return
        self._flush()
        if self._outstanding == OUTSTANDING_MAX - 1 and self._incoming:
            self._loop.soon(self._take_questions)

    def _flush(self) -> None:
        assert self._sock is not None
        try:
            sent = self._sock.send(self._unsent, _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        self._update()

    def _update(self) -> None:
        """Watch for what is wanted now."""
        if self._sock is None:
            return
        if self._ended and not (self._outstanding or self._unsent):
            self.close()
            return
        reading = not self._ended and self._outstanding < OUTSTANDING_MAX
        events = (READ if reading else 0) | (WRITE if self._unsent else 0)
        if events != self._events:
            self._events = events
            self._loop.change(self._sock.fileno(), events)
