"""Questions about the rest of the world: asked of other servers, each from a socket of its own.

A new socket a question, in the container's network namespace or the machine's, has a port that nobody
can guess, as has the question a number; what does not repeat both and the question is no answer.
A server that fails, refuses or is silent is followed by the next one, as in dockerd.
"""

from __future__ import annotations

import _socket
import os

from sampan.linux import syscalls as kernel
from sampan.network.names import messages
from sampan.network.names.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.network.names.loop import Loop
    from sampan.network.names.messages import Question
    from sampan.network.names.upstreams import Upstream

    Done = Callable[[bytes | None], None]

TIMEOUT_S = 4.0  # a server's time for an answer: dockerd's extIOTimeout
PORT = 53
_BROKEN_RCODES = (messages.SERVFAIL, messages.REFUSED)
_MESSAGE_BYTES = 65535


class Forwarder:
    """Asks other servers, from the network namespace that it is made in or those of containers."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._patience = loop.patience(TIMEOUT_S)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def ask(
        self,
        query: bytes,
        asked: Question,
        servers: list[Upstream],
        *,
        process: int,
        tcp: bool,
        done: Done,
    ) -> Inquiry:
        """Ask one server after the other; `done` is called once with the answer or None, not from here.

        `process` is a pidfd in the container's network namespace, kept open by the caller until the
        answer comes or the inquiry is cancelled.
        """
        inquiry = Inquiry(self, query, asked, iter(servers), process, tcp=tcp, done=done)
        self._loop.soon(inquiry.ask_next)
        return inquiry

    def open(self, server: Upstream, process: int, *, tcp: bool) -> _socket.socket:
        """A socket on its way to the server.

        Raises:
            OSError: there is no way to it, or the container has ended.
        """
        kind = _socket.SOCK_STREAM if tcp else _socket.SOCK_DGRAM
        kind |= _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
        if server.from_host:
            sock = _socket.socket(server.family, kind)
        else:
            kernel.setns(process, kernel.CLONE_NEWNET)
            try:
                sock = _socket.socket(server.family, kind)
            finally:
                self.come_home()
        try:
            sock.connect(_target(server))
        except BlockingIOError:
            pass  # a TCP connection under way
        except BaseException:
            sock.close()
            raise
        return sock

    def come_home(self) -> None:
        """Be in the machine's network namespace again."""
        kernel.setns(self._home, kernel.CLONE_NEWNET)

    def watch(
        self, sock: _socket.socket, call: Callable[[], None], late: Callable[[], None], events: int
    ) -> None:
        self._loop.watch(sock.fileno(), call, events)
        self._patience.begin(late)

    def change(self, sock: _socket.socket, events: int) -> None:
        self._loop.change(sock.fileno(), events)

    def close(self, sock: _socket.socket) -> None:
        self._loop.forget(sock.fileno())
        sock.close()


class Inquiry:
    """One question on its way through the servers."""

    __slots__ = (
        "_asked",
        "_attempt",
        "_done",
        "_forwarder",
        "_id",
        "_incoming",
        "_process",
        "_query",
        "_refusal",
        "_servers",
        "_sock",
        "_tcp",
        "_unsent",
    )

    def __init__(
        self,
        forwarder: Forwarder,
        query: bytes,
        asked: Question,
        servers: Iterator[Upstream],
        process: int,
        *,
        tcp: bool,
        done: Done,
    ) -> None:
        self._forwarder = forwarder
        self._id = query[:2]
        self._query = query
        self._asked = asked
        self._servers = servers
        self._process = process
        self._tcp = tcp
        self._done: Done | None = done
        self._sock: _socket.socket | None = None
        self._attempt = 0
        self._refusal: bytes | None = None
        self._unsent = b""
        self._incoming = b""

    def cancel(self) -> None:
        """Nobody waits any more: `done` is not called."""
        self._done = None
        self._hang_up()

    def ask_next(self) -> None:
        """Go to the next server; without one it is over, with the refusal of one if there was any."""
        self._hang_up()
        self._attempt += 1
        for server in self._servers if self._done is not None else ():
            self._query = os.urandom(2) + self._query[2:]
            try:
                self._sock = self._forwarder.open(server, self._process, tcp=self._tcp)
                self._begin(self._sock)
            except OSError:
                self._hang_up()
                continue
            return
        self._finish(self._refusal)

    def _begin(self, sock: _socket.socket) -> None:
        attempt = self._attempt
        if self._tcp:
            self._unsent = len(self._query).to_bytes(2, "big") + self._query
            self._incoming = b""
            call, events = self._on_stream, WRITE
        else:
            sock.send(self._query)
            call, events = self._on_datagram, READ
        self._forwarder.watch(sock, call, lambda: self._late(attempt), events)

    def _late(self, attempt: int) -> None:
        if self._sock is not None and attempt == self._attempt:
            self.ask_next()

    def _on_datagram(self) -> None:
        assert self._sock is not None
        try:
            message = self._sock.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:  # an ICMP message says that nobody listens
            self.ask_next()
            return
        if messages.answers(self._query, self._asked, message):
            self._take(message)

    def _on_stream(self) -> None:
        assert self._sock is not None
        try:
            if self._unsent:
                sent = self._sock.send(self._unsent, _socket.MSG_NOSIGNAL)
                self._unsent = self._unsent[sent:]
                if not self._unsent:
                    self._forwarder.change(self._sock, READ)
                return
            chunk = self._sock.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.ask_next()
            return
        self._incoming += chunk
        size = int.from_bytes(self._incoming[:2], "big")
        if len(self._incoming) >= size + 2 > 2:
            message = self._incoming[2 : size + 2]
            if messages.answers(self._query, self._asked, message):
                self._take(message)
                return
            self.ask_next()
        elif not chunk:
            self.ask_next()

    def _take(self, message: bytes) -> None:
        message = self._id + message[2:]
        if messages.rcode(message) in _BROKEN_RCODES:
            self._refusal = message
            self.ask_next()
        else:
            self._finish(message)

    def _finish(self, message: bytes | None) -> None:
        self._hang_up()
        done, self._done = self._done, None
        if done is not None:
            done(message)

    def _hang_up(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._forwarder.close(sock)


def _target(server: Upstream) -> tuple[str, int] | tuple[str, int, int, int]:
    if server.family == _socket.AF_INET:
        return server.address, PORT
    address, _, interface = server.address.partition("%")
    scope = _socket.if_nametoindex(interface) if interface else 0
    return address, PORT, 0, scope
