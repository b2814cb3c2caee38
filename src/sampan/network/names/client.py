"""The daemon's way to the resolver: started when it is first needed, found again, replaced when it dies.

names = NamesClient("/run/sampan", everything)
names.open()                         # the resolver of a former daemon is found again
names.tell({"type": "place", …})     # starts it, if nobody did
names.close()                        # it goes on as long as there are containers

What is told is not remembered here: to a resolver that is new to this daemon, `everything` tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from sampan import jsontext
from sampan.errors import Unavailable
from sampan.linux import seqpacket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Message = dict[str, Any]
    Everything = Callable[[], Iterable[tuple[Message, Sequence[int]]]]

log = logging.getLogger(__name__)

LISTENER_FD = 3
SOCKET = "names.sock"
LOG = "names.log"
RESOLV_CONF = "/etc/resolv.conf"
SHORT_LIFE_S = 1.0
RETRY_S = 1.0  # before the successor of one that died young
ANSWER_TIMEOUT_S = 5.0


class NamesClient:
    """One connection to the one resolver of an engine. Belongs to the loop that is running.

    `everything` yields all that a resolver has to know as (message, descriptors).
    """

    def __init__(self, run_directory: str, everything: Everything) -> None:
        self._directory = run_directory
        self._everything = everything
        self._sock: socket.socket | None = None
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._seq = 0
        self._pid = 0
        self._begun_at = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._closed = True

    @property
    def pid(self) -> int:
        """The process that this daemon has started; 0 for none, or a former daemon's."""
        return self._pid

    def open(self) -> None:
        """Take over the resolver of a former daemon, or start one if anybody needs it.

        To be called when `everything` is complete; what is told before is passed over.
        """
        self._closed = False
        if self._connect():
            self._synchronise()
        elif self._is_needed():
            self._start()

    def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Tell it something that has changed; the caller keeps the descriptors.

        A resolver that comes up for it is told everything instead, and this again: it does no harm.
        """
        if self._closed:
            return
        if self._sock is None:
            if self._retry is not None:
                return
            self._start()
        self._send(message, fds)

    async def ask(self, kind: str, **body: Any) -> Message:
        """The answer to a question; all that was told before has been done by then.

        Raises:
            Unavailable: there is no resolver, or it does not answer.
        """
        if self._sock is None:
            raise Unavailable("the resolver is not running")
        self._seq += 1
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[self._seq] = future
        self._send({"type": kind, "seq": self._seq, **body}, ())
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await future
        except TimeoutError:
            raise Unavailable("the resolver does not answer") from None
        finally:
            self._answers.pop(self._seq, None)

    def close(self) -> None:
        """Let go of it; it serves the containers that there are."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        self._disconnect()

    # The process

    def _connect(self) -> bool:
        sock = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        except OSError:  # nobody has one, or it is ending: ours is bound anew
            sock.close()
            return False
        finally:
            os.close(directory)
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._receive)
        return True

    def _start(self) -> None:
        """Have one: a former daemon's, or a new process. What is sent waits until it has come up."""
        self._begun_at = asyncio.get_running_loop().time()
        if not self._connect():
            try:
                self._pid = self._spawn()
            except OSError as error:
                # Process limit, full disk: containers start and end all the same, and it serves those
                # that it finds when there is room again.
                log.error("the resolver cannot be started yet: %s", error)
                loop = asyncio.get_running_loop()
                self._retry = loop.call_later(RETRY_S, self._again)
                return
            self._watch_process(self._pid)
            self._connect()
        self._synchronise()

    def _spawn(self) -> int:
        path = f"{self._directory}/{SOCKET}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = seqpacket.listen(path)
        try:
            return spawn(listener.fileno(), self._directory, path)
        finally:
            listener.close()

    def _watch_process(self, pid: int) -> None:
        """Reap it: it is our child, however long that lasts."""
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(pid)

        def reap() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(pid, 0)
            if status:
                log.error("the resolver ended (wait status %d)", status)

        loop.add_reader(pidfd, reap)

    def _synchronise(self) -> None:
        self._send({"type": "begin"}, ())
        for message, fds in self._everything():
            self._send(message, fds)
        self._send({"type": "end"}, ())

    def _is_needed(self) -> bool:
        return any(True for _ in self._everything())

    def _lost(self) -> None:
        """It is gone: where it is needed still, its successor takes its place."""
        self._disconnect()
        self._pid = 0
        if self._closed or self._retry is not None:
            return
        loop = asyncio.get_running_loop()
        young = loop.time() - self._begun_at < SHORT_LIFE_S
        self._retry = loop.call_later(RETRY_S if young else 0, self._again)

    def _again(self) -> None:
        self._retry = None
        if self._sock is None and self._is_needed():
            log.warning("the resolver is gone and is replaced")
            self._start()

    # The connection

    def _send(self, message: Message, fds: Sequence[int]) -> None:
        if self._sock is None:
            return
        packet = jsontext.encode(message).encode()
        if self._outbox:
            self._keep(packet, fds)
            return
        try:
            seqpacket.send(self._sock, packet, tuple(fds))
        except BlockingIOError:
            self._keep(packet, fds)
            asyncio.get_running_loop().add_writer(self._sock.fileno(), self._flush)
        except OSError:
            self._lost()

    def _keep(self, packet: bytes, fds: Sequence[int]) -> None:
        self._outbox.append((packet, [os.dup(fd) for fd in fds]))

    def _flush(self) -> None:
        while self._outbox and self._sock is not None:
            packet, fds = self._outbox[0]
            try:
                seqpacket.send(self._sock, packet, tuple(fds))
            except BlockingIOError:
                return
            except OSError:
                self._lost()
                return
            self._outbox.popleft()
            close_all(fds)
        if self._sock is not None:
            asyncio.get_running_loop().remove_writer(self._sock.fileno())

    def _receive(self) -> None:
        while self._sock is not None:
            try:
                packet, fds = seqpacket.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                packet, fds = b"", []
            close_all(fds)
            if not packet:
                self._lost()
                return
            answer = jsontext.decode(packet.decode())
            future = self._answers.get(answer.get("seq", 0))
            if future is not None and not future.done():
                future.set_result(answer)

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock.fileno())
        loop.remove_writer(sock.fileno())
        sock.close()
        for _, fds in self._outbox:
            close_all(fds)
        self._outbox.clear()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(Unavailable("the resolver is gone"))


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def spawn(listener: int, directory: str, path: str, resolv_conf: str = RESOLV_CONF) -> int:
    """Start the resolver's interpreter with the listening socket; its PID.

    It sees nothing of this process's environment, site-packages and descriptors. What nobody expected
    (tracebacks) it writes to names.log in the directory.
    """
    source = os.path.abspath(__file__)
    for _ in range(4):  # the directory of the package `sampan`
        source = os.path.dirname(source)
    code = (
        f"import sys; sys.path.append({source!r}); "
        f"from sampan.network.names.server import main; "
        f"main({LISTENER_FD}, {path!r}, {resolv_conf!r})"
    )
    executable: str = getattr(sys, "_base_executable", sys.executable)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    output = os.open(
        f"{directory}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    # Out of the way of the duplicate: on its own number dup2 would leave it close-on-exec.
    moved = os.dup(listener) if listener == LISTENER_FD else listener
    try:
        return os.posix_spawn(
            executable,
            [executable, "-I", "-S", "-c", code],
            {"PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                (os.POSIX_SPAWN_DUP2, moved, LISTENER_FD),
            ],
            setsigmask=(),
        )
    finally:
        if moved != listener:
            os.close(moved)
        os.close(output)
        os.close(null)
