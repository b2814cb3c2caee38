"""The fork server: one thread, all of shim and runtime imported, nothing else.

It waits for requests on one socket, has a shim for each, and reaps those that end before it does. It
keeps some forked ahead (`spares`), so that a request finds one ready; more at once are forked when they
come. The end of the socket is the end of the daemon: then it ends too, and the shims live on.

Kernel and fork ask for a single thread: unshare(2) of a user namespace and setns(2) into one fail when
threaded, and a lock that another thread held at fork never opens in the child.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time

from sampan.linux import syscalls as kernel
from sampan.linux.cgroups.manager import open_cgroup
from sampan.runtime import launch
from sampan.shim import child, pipes, protocol
from sampan.shim.loop import READ, Loop
from sampan.shim.spares import Spare, Spares
from sampan.shim.working_set import REPORT_LIMIT, Lesson, WorkingSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

PROCESS_NAME = b"sampan-zygote"


def main(fd: int) -> NoReturn:
    """Serve the daemon on the SOCK_SEQPACKET socket `fd`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c in the daemon's terminal is the daemon's
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    with open("/proc/self/comm", "wb", buffering=0) as comm:
        comm.write(PROCESS_NAME)
    kernel.close_range(fd + 1)  # what the daemon's process left inheritable
    sock = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    launch.warm()
    pipes.warm()
    open_cgroup("/warm")  # loads the modules of this machine's hierarchy, and makes nothing
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
        self._spares = Spares()
        self._working_set = WorkingSet(("exec", "spawn"))
        self._lessons, self._teachers = _pair()
        self._lessons.setblocking(False)

    def serve(self) -> None:
        """Until the daemon is gone."""
        self._loop.on_child(self._reap)
        self._loop.watch(self._sock.fileno(), READ, self._on_request)
        self._loop.watch(self._lessons.fileno(), READ, self._learn)
        while self._running:
            self._loop.run_once(self._spares.patience(time.monotonic()))
            if self._spares.patience(time.monotonic()) == 0.0:
                self._fork_spare()

    def _on_request(self, _: int) -> None:
        try:
            received = protocol.receive_packet(self._sock)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._running = False
            return
        packet, fds = received
        if not self._give_to_spare(packet, fds):
            self._fork_for(packet, fds)
        protocol.close_all(fds)

    def _learn(self, _: int) -> None:
        """One of the first helpers tells what its work has touched."""
        try:
            self._working_set.learn(self._lessons.recv(REPORT_LIMIT))
        except BlockingIOError:
            return
        if not self._working_set.wanted():
            self._loop.forget(self._lessons.fileno())
            self._lessons.close()
            self._teachers.close()

    def _lesson(self) -> Lesson | None:
        wanted = self._working_set.wanted()
        return Lesson(self._teachers, wanted) if wanted else None

    def _give_to_spare(self, packet: bytes, fds: list[int]) -> bool:
        spare = self._spares.take(time.monotonic())
        if spare is None:
            return False
        try:
            return spare.give(packet, fds)
        except OSError as error:
            child.refuse(packet, fds, error)
            return True
        finally:
            spare.close()

    def _fork_for(self, packet: bytes, fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            child.refuse(packet, fds, error)
            return
        if pid == 0:
            self._be_child(lambda: child.run_now(packet, fds))

    def _fork_spare(self) -> None:
        """Have one more spare: warm while requests come, lean when the engine idles."""
        warm = self._spares.make_room(time.monotonic())
        ours, theirs = _pair()
        helpers = _pair()
        try:
            pid = os.fork()
        except OSError:
            self._spares.not_forked(time.monotonic())
            for sock in (ours, theirs, *helpers):
                sock.close()
            return
        if pid == 0:
            ours.close()
            ahead, lesson = self._working_set.spans, self._lesson()
            self._be_child(lambda: child.run_spare(theirs, helpers, ahead, lesson, warm=warm))
        theirs.close()
        helpers[1].close()
        self._spares.add(Spare(pid, ours, helpers[0], warm=warm))

    def _be_child(self, life: Callable[[], None]) -> NoReturn:
        """Give up what is the zygote's, and live; a fork's child never returns into this stack."""
        try:
            self._loop.close()
            self._sock.close()
            self._lessons.close()
            self._spares.close()
            life()
        except BaseException:  # noqa: BLE001  the last resort of a process: say it in zygote.log
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)

    def _reap(self) -> None:
        """Take the status of shims that have ended; nobody needs it, their sockets told the daemon."""
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._spares.ended(pid, time.monotonic())
        except ChildProcessError:
            pass


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
