"""One TCP stream, and one byte and back, between two network namespaces; by this program itself.

Both ends are children of the measuring process: what is measured is the way between the namespaces, not a
program in a container. They go before everything else on the machine, on a processor each, or on one: then a
round trip is the kernel's work for it and no waking of another processor, and is the same to the percent. A
receiver counts, so that what lies in buffers does not.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from sampan.linux import syscalls

_CLONE_NEWNET = 0x40000000
_SPAN_S = 0.4
_PIECE = bytes(1 << 17)
_BYTES_AND_BACK = 1500
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Way:
    """From a client in one namespace to a server in another; both are paths of namespaces' files.

    The server listens at `port` of all its addresses, the client goes to `target`.
    """

    client: str
    server: str
    port: int
    target: tuple[str, int]


def throughput(way: Way) -> float:
    """Gbit/s of one stream."""
    return _between(way, _receive, _send, together=False)


def round_trip(way: Way, *, together: bool) -> float:
    """Seconds for a byte and back, the median of some; `together`: both ends on one processor."""
    return _between(way, _echo, _ask, together=together)


def _between(
    way: Way,
    serve: Callable[[socket.socket], float | None],
    use: Callable[[socket.socket], float | None],
    *,
    together: bool,
) -> float:
    """What the two ends found; one of them finds a figure."""
    ready, tell = os.pipe()
    results, say = os.pipe()

    def server() -> float | None:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("", way.port))
            listening.listen()
            os.write(tell, b".")
            listening.settimeout(_PATIENCE_S)
            end, _ = listening.accept()
            with end:
                return serve(end)

    def client() -> float | None:
        with socket.create_connection(way.target, timeout=_PATIENCE_S) as end:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return use(end)

    pids = [_child(way.server, 0, server, say)]
    os.close(tell)  # a server that ends without a word is an end of file
    try:
        assert os.read(ready, 1) == b".", f"no server for {way}"
        pids.append(_child(way.client, 0 if together else -1, client, say))
    finally:
        os.close(ready)
        os.close(say)
        with open(results) as file:
            found = file.read()
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0, 0], f"{way}: {codes}"
    return float(json.loads(found))


def _child(namespace: str, processor: int, work: Callable[[], float | None], say: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        fd = os.open(namespace, os.O_RDONLY)
        syscalls.setns(fd, _CLONE_NEWNET)
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[processor]})
        # What else the machine does is not to be measured.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        if (found := work()) is not None:
            os.write(say, json.dumps(found).encode())
        code = 0
    except (OSError, ValueError) as error:
        print(f"{namespace}: {error!r}", file=sys.stderr)
    finally:
        os._exit(code)


def _send(end: socket.socket) -> None:
    until = time.perf_counter() + _SPAN_S
    while time.perf_counter() < until:
        end.sendall(_PIECE)


def _receive(end: socket.socket) -> float:
    room = bytearray(1 << 20)
    received = 0
    end.recv_into(room)
    begin = time.perf_counter()
    while count := end.recv_into(room):
        received += count
    return received * 8 / (time.perf_counter() - begin) / 1e9


def _ask(end: socket.socket) -> float:
    times = []
    for _ in range(_BYTES_AND_BACK):
        begin = time.perf_counter()
        end.send(b"x")
        end.recv(1)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _echo(end: socket.socket) -> None:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while piece := end.recv(64):
        end.send(piece)
