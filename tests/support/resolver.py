"""The resolver's process under test, containers made of a network namespace and a process, questions."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from sampan import jsontext
from sampan.linux import dns_sockets, netlink, seqpacket
from sampan.network.names import messages
from sampan.network.names.client import spawn
from support.netns import NetworkNamespace
from support.waiting import wait_for

AT = ("127.0.0.11", 53)
PATIENCE_S = 30.0
RETRY_S = 2.0


class FakeContainer:
    """A network namespace with a process in it that lives until `end`."""

    def __init__(self, identity: str, namespace: NetworkNamespace | None = None) -> None:
        self.id = identity
        self._undo = ExitStack()
        if namespace is None:
            namespace = NetworkNamespace()
            self._undo.callback(namespace.close)
        self.namespace = namespace
        with namespace.entered():
            netlink.configure_inside([])
            self.process = subprocess.Popen(["sleep", "1000"])
        self.pidfd = os.pidfd_open(self.process.pid)

    def socket(self, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A socket in it, closed at the end."""
        with self.namespace.entered():
            sock = socket.socket(socket.AF_INET, kind)
        self._undo.callback(sock.close)
        sock.settimeout(PATIENCE_S)
        return sock

    def ask(self, name: str, qtype: int = messages.A, *, tcp: bool = False) -> Answer:
        """Ask the resolver and wait for the answer."""
        query = make_query(name, qtype)
        if not tcp:
            sock = self.socket()
            sock.connect(AT)
            sock.settimeout(RETRY_S)
            for _ in range(int(PATIENCE_S / RETRY_S)):
                sock.send(query)  # again, as clients do: a full queue drops it
                with contextlib.suppress(TimeoutError):
                    return Answer(sock.recv(65535))
            raise TimeoutError(f"no answer about {name}")
        sock = self.socket(socket.SOCK_STREAM)
        sock.connect(AT)
        send_framed(sock, query)
        return Answer(receive_framed(sock))

    def end(self) -> None:
        """End the process, and forget what was opened in the namespace."""
        self.process.kill()
        self.process.wait()
        os.close(self.pidfd)
        self._undo.close()


class Answer:
    """What came back: `rcode`, addresses as text, whether it was cut short."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.rcode = messages.rcode(message)
        self.cut = bool(message[2] & 0x02)
        self.addresses = [
            socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
            for packed, _ in messages.addresses(message)
        ]

    def __repr__(self) -> str:
        return f"<{self.rcode} {self.addresses}>"


class ResolverProcess:
    """The process, and the daemon's end of its connection. `host` is the namespace it counts as the machine's."""

    def __init__(
        self, directory: str, host: NetworkNamespace | None = None, resolv_conf: str = ""
    ) -> None:
        self.directory = directory
        self.path = f"{directory}/names.sock"
        self._resolv_conf = f"{directory}/resolv.conf"
        self.set_servers(resolv_conf)
        listener = seqpacket.listen(self.path)
        with ExitStack() as entered:
            if host is not None:
                entered.enter_context(host.entered())
            self.pid = spawn(listener.fileno(), directory, self.path, self._resolv_conf)
        listener.close()
        self._seq = 0
        self.daemon = seqpacket.connect(self.path)

    def set_servers(self, resolv_conf: str) -> None:
        with open(self._resolv_conf, "w") as file:
            file.write(resolv_conf)

    def tell(self, kind: str, fds: Sequence[int] = (), **body: Any) -> None:
        message = jsontext.encode({"type": kind, **body}).encode()
        seqpacket.send(self.daemon, message, tuple(fds))

    def ask(self, kind: str, **body: Any) -> Any:
        """An answer of its control protocol; all that was told is done by then."""
        self._seq += 1
        self.tell(kind, seq=self._seq, **body)
        packet, _ = seqpacket.receive(self.daemon)
        answer = jsontext.decode(packet.decode())
        assert answer["seq"] == self._seq
        return answer

    def settle(self) -> None:
        self.ask("ping")

    def place(
        self, container: str, names: Iterable[str], address: str = "", address6: str = "", network: str = "net"
    ) -> None:  # fmt: skip
        self.tell("network", id=network, name=network)
        self.tell(
            "place", network=network, container=container, names=list(names),
            address=address, address6=address6,
        )  # fmt: skip

    def serve(
        self, container: FakeContainer, networks: Iterable[str] = ("net",), *, sockets: bool = True,
        process: int = 1, **body: Any,
    ) -> None:  # fmt: skip
        """Have a container served; with sockets as its start made them, or without."""
        with ExitStack() as closing:
            fds = [container.pidfd]
            if sockets:
                with container.namespace.entered():
                    made = dns_sockets.open_sockets()
                for each in made:
                    closing.callback(each.close)
                    fds.append(each.fileno())
            self.tell(
                "serve", fds, container=container.id, process=[process, 1],
                **{
                    "networks": [{"id": each, "links": {}} for each in networks],
                    "leads_out": True, "servers": None, "ndots": False, "policy": None, **body,
                },
            )  # fmt: skip
        self.settle()

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_s(self) -> float:
        """The processor's time that it has used."""
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reconnect(self) -> None:
        self.daemon.close()
        self.daemon = seqpacket.connect(self.path)

    def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Its wait status, when it ends by itself."""
        pidfd = os.pidfd_open(self.pid)
        try:
            assert select.select([pidfd], [], [], timeout_s)[0], "the resolver does not end"
        finally:
            os.close(pidfd)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return status

    def close(self) -> None:
        """End it, by force if need be; it must not have had to say anything."""
        self.daemon.close()
        if self.pid:
            self.ended()
        with open(f"{self.directory}/names.log") as log:
            said = log.read()
        assert not said, said


def make_query(name: str, qtype: int = messages.A, *, identity: int = 0x1234) -> bytes:
    head = struct.pack(">HHHHHH", identity, 0x0100, 1, 0, 0, 0)
    return head + messages.wire_name(name) + struct.pack(">HH", qtype, messages.IN)


def send_framed(sock: socket.socket, message: bytes) -> None:
    sock.sendall(len(message).to_bytes(2, "big") + message)


def receive_framed(sock: socket.socket) -> bytes:
    size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
    return sock.recv(size, socket.MSG_WAITALL)


class Upstream:
    """A name server of the test, played by the test itself: it answers when it is told to."""

    def __init__(self, namespace: NetworkNamespace, address: str) -> None:
        with namespace.entered():
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.udp.settimeout(PATIENCE_S)
        self.tcp.settimeout(PATIENCE_S)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.udp.bind((address, 53))
        self.tcp.bind((address, 53))
        self.tcp.listen()

    def asked(self) -> tuple[bytes, Any]:
        """The next question by UDP, and who asks."""
        return self.udp.recvfrom(65535)

    def answer(self, *addresses: str, rcode: int = 0) -> None:
        """Answer the next question by UDP."""
        query, sender = self.asked()
        self.udp.sendto(make_answer(query, addresses, rcode), sender)

    def waiting(self) -> bool:
        return bool(select.select([self.udp], [], [], 0)[0])

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


def make_answer(query: bytes, addresses: Iterable[str], rcode: int = 0) -> bytes:
    asked = messages.question(query)
    if rcode:
        return messages.failure(query, rcode, asked)
    values = [socket.inet_aton(address) for address in addresses]
    return messages.answer(query, asked, messages.A, values)


def wait_until_gone(resolver: ResolverProcess, descriptors: int) -> None:
    """Until the resolver holds no more than so many descriptors: those of a container were closed."""
    wait_for(lambda: resolver.descriptors() <= descriptors, "the container's sockets to be closed")
