"""The fork server: one thread, all of shim and runtime imported, nothing else.

It waits for requests on one socket, forks a shim for each, and reaps those that end before it does. The
end of the socket is the end of the daemon: then it ends too, and the shims live on.

kernel and style ask for a single thread: unshare(2) of a user namespace and setns(2) into one fail when
threaded, and a lock that another thread held at fork never opens in the child.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

from sampan.linux import syscalls as kernel
from sampan.runtime import launch
from sampan.runtime.trace import Trace
from sampan.shim import process, protocol
from sampan.shim.loop import READ, Loop
from sampan.shim.protocol import SpawnOrder, StreamOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sampan.shim.protocol import Message

PROCESS_NAME = b"sampan-zygote"


def main(fd: int) -> NoReturn:
    """Serve the daemon on the SOCK_SEQPACKET socket `fd`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c in the daemon's terminal is the daemon's
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    with open("/proc/self/comm", "wb", buffering=0) as comm:
        comm.write(PROCESS_NAME)
    sock = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    launch.warm()
    gc.collect()
    gc.freeze()  # children share these pages as long as no collection touches them
    gc.disable()
    kernel.libc.malloc_trim(0)
    protocol.send(sock, {"type": "ready", "version": protocol.PROTOCOL_VERSION})
    Zygote(sock).serve()
    os._exit(0)


class Zygote:
    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = Loop()
        self._running = True

    def serve(self) -> None:
        """Until the daemon is gone."""
        self._loop.on_child(reap)
        self._loop.watch(self._sock.fileno(), READ, self._on_request)
        while self._running:
            self._loop.run_once()

    def _on_request(self, _: int) -> None:
        try:
            received = protocol.receive(self._sock)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._running = False
            return
        message, fds = received
        if message.get("type") == "spawn":
            self._spawn(message, fds)
        protocol.close_all(fds)

    def _spawn(self, message: Message, fds: list[int]) -> None:
        """Fork the shim; descriptors that it owns are closed here by the caller."""
        process.prepare(message["request"])
        try:
            pid = os.fork()
        except OSError as error:
            refuse(fds[0], error)
            return
        if pid == 0:
            self._become_shim(message, fds)

    def _become_shim(self, message: Message, fds: list[int]) -> NoReturn:
        try:
            self._loop.close()
            self._sock.close()
            trace = start_trace(message)
            order = SpawnOrder.from_dict(message["request"])
            options = [StreamOptions.from_dict(each) for each in message["streams"]]
            control = socket.socket(fileno=fds[0])
            process.main(order, list(zip(fds[1:], options, strict=True)), control, trace)
        except BaseException:  # noqa: BLE001  a fork's child never returns into its parent's stack
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)


def start_trace(message: Message) -> Trace | None:
    if "sent_at_ns" not in message:
        return None
    trace = Trace()
    trace.marks.append(("sent", message["sent_at_ns"]))
    trace.mark("forked")
    return trace


def refuse(control: int, error: OSError) -> None:
    """Tell the daemon that there will be no shim."""
    sock = socket.socket(fileno=os.dup(control))
    failure = {"stage": "fork", "message": f"fork: {error.strerror}", "errno": error.errno}
    protocol.send(sock, {"type": "begun"})
    protocol.send(sock, {"type": "failed", **failure})
    sock.close()


def reap() -> None:
    """Take the status of shims that have ended; nobody needs it, their sockets told the daemon."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
