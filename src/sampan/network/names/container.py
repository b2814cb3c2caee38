"""One container as the resolver serves it: its two sockets, what it sees, and whom else to ask for it."""

from __future__ import annotations

import _socket
import os

from sampan.network.names import messages
from sampan.network.names.connection import Connection
from sampan.network.names.messages import Malformed, Question
from sampan.network.names.table import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.network.names.forwarding import Forwarder, Inquiry
    from sampan.network.names.gate import Gate
    from sampan.network.names.loop import Loop, Patience
    from sampan.network.names.upstreams import HostServers, Upstream

    Reply = Callable[[bytes], None]

BURST = 32  # questions taken from one container before the others have their turn
INQUIRIES_MAX = (
    256  # of one container at once; dockerd's is 1024, of an interpreter that has threads
)
CONNECTIONS_MAX = 64
_QUESTION_BYTES = 4096


class Surroundings:
    """What all containers' servers share."""

    __slots__ = ("forwarder", "host_servers", "idle", "loop")

    def __init__(
        self, loop: Loop, forwarder: Forwarder, host_servers: HostServers, idle: Patience
    ) -> None:
        self.loop = loop
        self.forwarder = forwarder
        self.host_servers = host_servers
        self.idle = idle


class Served:
    """A container that is answered until its process ends.

    `servers`: those of its own, None for the machine's. With `ndots` its user wants names without a
    dot to be tried with the search domains first: they are not asked of others. Without `leads_out` all
    its networks are internal, and nothing is asked of others.
    """

    def __init__(
        self, surroundings: Surroundings, pidfd: int, udp: _socket.socket, tcp: _socket.socket
    ) -> None:
        self.view = View()
        self.servers: list[Upstream] | None = None
        self.ndots = False
        self.leads_out = True
        self.gate: Gate | None = None
        self.process = pidfd
        self._around = surroundings
        self._udp = udp
        self._tcp = tcp
        self._inquiries: set[Inquiry] = set()
        self._connections: set[Connection] = set()
        surroundings.loop.watch(udp.fileno(), self._on_datagrams)
        surroundings.loop.watch(tcp.fileno(), self._on_connection)

    def close(self) -> None:
        """Let go of everything: what is open keeps the container's network namespace."""
        loop = self._around.loop
        for inquiry in self._inquiries:
            inquiry.cancel()
        for connection in list(self._connections):
            connection.close()
        for sock in (self._udp, self._tcp):
            loop.forget(sock.fileno())
            sock.close()
        loop.forget(self.process)
        os.close(self.process)
        if self.gate is not None:
            self.gate.close()

    def _on_datagrams(self) -> None:
        for _ in range(BURST):
            try:
                query, sender = self._udp.recvfrom(_QUESTION_BYTES)
            except OSError:  # EAGAIN, mostly; errors of former answers come this way too
                return
            self.serve(query, lambda answer, to=sender: self._send(answer, to))  # type: ignore[misc]

    def _send(self, answer: bytes, to: tuple[str, int]) -> None:
        try:
            self._udp.sendto(answer, to)
        except OSError:
            pass  # it does not want it any more, or its socket is full: it will ask again

    def _on_connection(self) -> None:
        try:
            fd, _ = self._tcp._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, fd)
        if len(self._connections) >= CONNECTIONS_MAX:
            sock.close()
            return
        sock.setblocking(False)
        around = self._around
        self._connections.add(
            Connection(around.loop, around.idle, sock, self.serve, self._connections.discard)
        )

    # One question

    def serve(self, query: bytes, reply: Reply, *, tcp: bool = False) -> None:
        """Answer a query, now or when others have answered."""
        try:
            asked = messages.question(query)
        except Malformed as error:
            if error.rcode >= 0:
                reply(messages.failure(query, error.rcode))
            return
        if asked.qclass != messages.IN:
            reply(messages.failure(query, messages.REFUSED, asked))
            return
        limit = messages.TCP_BYTES if tcp else asked.limit
        try:
            answer = self._own_answer(query, asked, limit)
        except OSError:
            answer = messages.failure(query, messages.SERVFAIL, asked)
        if answer is not None:
            reply(answer)
        else:
            self._ask_others(query, asked, reply, tcp=tcp)

    def _own_answer(self, query: bytes, asked: Question, limit: int) -> bytes | None:
        """What the container's networks know; None: nothing."""
        if asked.qtype == messages.PTR:
            address = messages.reversed_address(asked.name)
            name = self.view.name_of(address) if address else ""
            if not name:
                return None
            return messages.answer(query, asked, messages.PTR, [messages.wire_name(name)], limit)
        places = self.view.find(asked.name)
        if not places:
            if self.ndots and "." not in asked.name and asked.qtype in (messages.A, messages.AAAA):
                return messages.answer(query, asked, asked.qtype, (), limit)
            return None
        # Of a name that is one of ours, what we do not know does not exist: not a matter of others.
        values: list[bytes] = []
        if asked.qtype == messages.A:
            values = [place.address for place in places if place.address]
        elif asked.qtype == messages.AAAA:
            values = [place.address6 for place in places if place.address6]
        if self.gate is not None and values and self.gate.allows(asked.name):
            self.gate.learn(asked.name, [(value, messages.TTL_S) for value in values])
        return messages.answer(query, asked, asked.qtype, values, limit)

    def _ask_others(self, query: bytes, asked: Question, reply: Reply, *, tcp: bool) -> None:
        if not self.leads_out:
            reply(messages.failure(query, messages.SERVFAIL, asked))
            return
        if self.gate is not None and not self.gate.allows(asked.name):
            reply(messages.failure(query, messages.NXDOMAIN, asked))
            return
        if len(self._inquiries) >= INQUIRIES_MAX:
            reply(messages.failure(query, messages.REFUSED, asked))
            return

        def done(answer: bytes | None) -> None:
            self._inquiries.discard(inquiry)
            reply(self._passed_on(answer, query, asked))

        inquiry = self._around.forwarder.ask(
            query, asked, self._servers(), process=self.process, tcp=tcp, done=done
        )
        self._inquiries.add(inquiry)

    def _servers(self) -> list[Upstream]:
        """Under a policy they are asked from the machine: the policy lets nothing of the container's pass."""
        servers = self.servers if self.servers is not None else self._around.host_servers.servers()
        if self.gate is None:
            return servers
        return [server.seen_from_host() for server in servers]

    def _passed_on(self, answer: bytes | None, query: bytes, asked: Question) -> bytes:
        """The answer of another server, once the policy knows what it says."""
        if answer is None:
            return messages.failure(query, messages.SERVFAIL, asked)
        if self.gate is not None:
            try:
                found = messages.addresses(answer)
                if found:
                    self.gate.learn(asked.name, found)
            except (Malformed, OSError):
                return messages.failure(query, messages.SERVFAIL, asked)
        return answer
