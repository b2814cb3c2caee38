"""The fork server's process, as the daemon starts and watches it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from sampan.linux import selfexec
from sampan.shim.channel import Channel, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.shim.protocol import Message

ZYGOTE_FD = 3


class ForkServer:
    """One process of the fork server. `ready` is resolved when it takes requests, or has ended."""

    def __init__(self, run_directory: str, on_end: Callable[[ForkServer, int], None]) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        )
        try:
            self.pid = spawn_interpreter(theirs.fileno(), run_directory)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.born_at = loop.time()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.channel = Channel(ours, on_message=self._receive, on_closed=self._hang_up)
        self._on_end = on_end
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)

    def _receive(self, message: Message, fds: list[int]) -> None:
        if message.get("type") == "ready":
            resolve(self.ready)

    def _hang_up(self) -> None:
        """It closed its socket: it is ending, and if it is not, it is of no use."""
        if not self.ended.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self.channel.close()
        resolve(self.ended)
        resolve(self.ready)
        self._on_end(self, status)


def spawn_interpreter(sock: int, run_directory: str) -> int:
    """Start the fork server's interpreter with `sock` as descriptor 3; its PID.

    It sees nothing of this process's environment, site-packages and descriptors, and runs from a
    read-only view of the interpreter's file, for its children enter containers (see `selfexec`).
    """
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path.append({source!r}); "
        f"from sampan.shim.zygote import main; main({ZYGOTE_FD})"
    )
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    log = os.open(
        f"{run_directory}/zygote.log",
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
        0o600,
    )
    view = selfexec.readonly_interpreter()
    interpreter = fcntl.fcntl(view, fcntl.F_DUPFD_CLOEXEC, ZYGOTE_FD + 1)  # out of dup2's way
    os.close(view)
    executable: str = getattr(sys, "_base_executable", sys.executable)
    try:
        return os.posix_spawn(
            f"/proc/self/fd/{interpreter}",
            [executable, "-I", "-S", "-c", code],
            {"PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_DUP2, sock, ZYGOTE_FD),
            ],
            setsigmask=(),
        )
    finally:
        os.close(interpreter)
        os.close(log)
        os.close(null)
