"""The resolver: a process of its own that answers the containers of one engine at 127.0.0.11.

It outlives the daemon: what it knows stays until the next daemon says otherwise. It ends when there is
neither a daemon nor a container. One thread, one loop; what a container asks waits in that container's
own socket, and each gets its turn.

    daemon                                          resolver
      (binds names.sock, starts it with the listening socket; a later daemon just connects)
      begin  ------------------------------------>  what comes until `end` is all there is
      network(id, name)  ------------------------>
      place(network, container, names, addresses)-> a container is found in a network
      unplace(network, container)  -------------->
      serve(container, process, networks …) [pidfd, udp, tcp] -->   sockets of its start; or
      serve(…) [pidfd]  ------------------------->  sockets are kept, or made in its network namespace
      end  -------------------------------------->
      refused(seq, container), ping(seq)  ------->
      answer(seq, …)  <---------------------------  to ping: who is served

Messages are JSON over SOCK_SEQPACKET; names that are not known are ignored. A container's sockets are
closed when its process ends, which its pidfd tells: open ones would keep its network namespace.
"""

from __future__ import annotations

import _socket
import gc
import os
import resource
import signal
import sys

from sampan import jsontext
from sampan.linux import dns_sockets, seqpacket
from sampan.linux import syscalls as kernel
from sampan.network.names.container import Served, Surroundings
from sampan.network.names.forwarding import Forwarder
from sampan.network.names.gate import Shut, open_gate
from sampan.network.names.loop import Loop
from sampan.network.names.table import NetworkNames, Place
from sampan.network.names.upstreams import HostServers, Upstream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Message = dict[str, Any]

PROCESS_NAME = b"sampan-names"
IDLE_S = 10.0  # a TCP connection's, RFC 7766 leaves it at "a few seconds"


def main(fd: int, path: str, resolv_conf: str) -> NoReturn:
    """Serve daemons on the listening socket `fd`, which is bound to `path`, until it is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.setsid()
    os.chdir("/")
    with open("/proc/self/comm", "wb", buffering=0) as comm:
        comm.write(PROCESS_NAME)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
    os.set_inheritable(fd, False)
    listener.setblocking(False)
    gc.collect()
    gc.freeze()
    Resolver(listener, resolv_conf).run()
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    sys.exit(0)


class Resolver:
    """All networks and containers of an engine, and the daemon that tells of them."""

    def __init__(self, listener: _socket.socket, resolv_conf: str) -> None:
        self._loop = Loop()
        self._listener = listener
        self._daemon: _socket.socket | None = None
        self._met = False
        self._around = Surroundings(
            self._loop,
            Forwarder(self._loop),
            HostServers(resolv_conf),
            self._loop.patience(IDLE_S),
        )
        self._networks: dict[str, NetworkNames] = {}
        self._served: dict[str, Served] = {}
        self._described: dict[str, Message] = {}
        self._former: tuple[set[str], set[tuple[str, str]], set[str]] | None = None
        self._loop.watch(listener.fileno(), self._accept, urgent=True)

    def run(self) -> None:
        """Until there is neither a daemon nor a container."""
        while not self._met or self._daemon is not None or self._served:
            self._loop.run_once()

    # The daemon

    def _accept(self) -> None:
        """The newest daemon is the one that counts."""
        try:
            daemon = seqpacket.accept(self._listener)
        except OSError:
            return
        self._leave()
        daemon.setblocking(False)
        self._daemon = daemon
        self._met = True
        self._loop.watch(daemon.fileno(), self._receive, urgent=True)

    def _leave(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            self._loop.forget(daemon.fileno())
            daemon.close()
        self._former = None

    def _receive(self) -> None:
        while self._daemon is not None:
            try:
                packet, fds = seqpacket.receive(self._daemon)
            except BlockingIOError:
                return
            except OSError:
                packet, fds = b"", []
            if not packet:
                self._leave()
                return
            try:
                self._handle(jsontext.decode(packet.decode()), fds)
            except Exception:  # noqa: BLE001 - one message's fault is not the others'; names.log has it
                sys.excepthook(*sys.exc_info())
            finally:
                for fd in fds:
                    os.close(fd)

    def _handle(self, message: Message, fds: list[int]) -> None:
        """Do what a message says; takes out of `fds` what it keeps."""
        kind = message["type"]
        if kind == "serve":
            self._serve(message, fds)
        elif kind == "place":
            self._place(message)
        elif kind == "unplace":
            self._unplace(message["network"], message["container"])
        elif kind == "network":
            self._network(message)
        elif kind == "begin":
            self._begin()
        elif kind == "end":
            self._end()
        elif kind in ("ping", "refused"):
            self._answer(message)

    def _answer(self, message: Message) -> None:
        answer: Message = {"type": "answer", "seq": message["seq"]}
        if message["type"] == "refused":
            served = self._served.get(message["container"])
            gate = served.gate if served is not None else None
            answer["refused"] = gate.refused() if gate is not None else []
        else:
            answer["served"] = sorted(self._served.keys() | self._described.keys())
        assert self._daemon is not None
        try:
            seqpacket.send(self._daemon, jsontext.encode(answer).encode())
        except OSError:
            self._leave()  # it does not read: it is no daemon of ours any more

    def _begin(self) -> None:
        """Remember what there was: what is not told again until `end` goes."""
        places = {(key, each) for key, network in self._networks.items() for each in network.places}
        self._former = (set(self._networks), places, set(self._served))

    def _end(self) -> None:
        if self._former is None:
            return
        networks, places, served = self._former
        self._former = None
        for network_id, container_id in places:
            self._unplace(network_id, container_id)
        for network_id in networks:
            self._networks.pop(network_id, None)
        for container_id in served:
            self._drop(container_id)

    # What there is

    def _network(self, message: Message) -> None:
        identity = message["id"]
        if self._former is not None:
            self._former[0].discard(identity)
        self._known(identity).name = message["name"]

    def _known(self, identity: str) -> NetworkNames:
        network = self._networks.get(identity)
        if network is None:
            network = self._networks[identity] = NetworkNames("")
        return network

    def _place(self, message: Message) -> None:
        key = message["network"], message["container"]
        if self._former is not None:
            self._former[1].discard(key)
        place = Place(message["names"], packed(message["address"]), packed(message["address6"]))
        self._networks[key[0]].put(key[1], place)

    def _unplace(self, network_id: str, container_id: str) -> None:
        network = self._networks.get(network_id)
        if network is not None:
            network.drop(container_id)
            if not network.places:
                del self._networks[network_id]

    def _serve(self, message: Message, fds: list[int]) -> None:
        """Serve a container from now on, or differently."""
        identity = message["container"]
        if self._former is not None:
            self._former[2].discard(identity)
        served = self._served.get(identity)
        former = self._described.get(identity)
        if served is not None and former is not None and former["process"] != message["process"]:
            self._drop(identity)  # it was started again
            served = None
        if served is None:
            served = self._take_over(fds)
            self._served[identity] = served
            self._loop.watch(served.process, lambda: self._drop(identity, served))
        self._described[identity] = message
        self._describe(served, message)

    def _take_over(self, fds: list[int]) -> Served:
        """A container that was not served so far.

        Raises:
            OSError: it has ended, or its network namespace does not let us in.
        """
        if len(fds) == 1:
            udp, tcp = self._open_inside(fds[0])
        else:
            udp = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM, 0, fds.pop(1))
            tcp = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, fds.pop(1))
            udp.setblocking(False)
            tcp.setblocking(False)
        return Served(self._around, fds.pop(0), udp, tcp)

    def _open_inside(self, pidfd: int) -> tuple[_socket.socket, _socket.socket]:
        kernel.setns(pidfd, kernel.CLONE_NEWNET)
        try:
            return dns_sockets.reopen_sockets()
        finally:
            self._around.forwarder.come_home()

    def _describe(self, served: Served, message: Message) -> None:
        self._set_gate(served, message.get("policy"))
        view = served.view
        view.networks = [self._known(each["id"]) for each in message["networks"]]
        view.links = [each["links"] for each in message["networks"]]
        servers = message["servers"]
        served.servers = (
            None if servers is None else [Upstream(each, from_host=False) for each in servers]
        )
        served.ndots, served.leads_out = message["ndots"], message["leads_out"]

    def _set_gate(self, served: Served, policy: Message | None) -> None:
        """From now on that policy holds; one that makes no sense lets nothing pass."""
        former = served.gate
        served.gate = Shut() if policy is not None else None
        if policy is not None:
            served.gate = open_gate(policy, former)
        if former is not None:
            former.close()

    def _drop(self, identity: str, served: Served | None = None) -> None:
        """Serve a container no more; `served`: only if it is still this run of it."""
        if served is not None and self._served.get(identity) is not served:
            return
        gone = self._served.pop(identity, None)
        self._described.pop(identity, None)
        if gone is not None:
            gone.close()


def packed(address: str) -> bytes:
    """An address as bytes; empty for none."""
    if not address:
        return b""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    return _socket.inet_pton(family, address)
