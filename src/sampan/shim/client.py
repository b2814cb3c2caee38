"""The daemon's way to shims: start the zygote, spawn containers, find those of a former daemon.

zygote = Zygote(run_directory="/run/sampan", on_restart=log_it)
await zygote.start()                                  # before anything else: it is a fork server
connection = await zygote.spawn(request, streams)     # the container's process has exec'd
status = await connection.exited                      # its log is complete
await zygote.stop()                                   # containers go on

connection = await reconnect(request.socket)          # in the next daemon
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from sampan.errors import NotFound, SampanError, Unavailable
from sampan.linux import selfexec
from sampan.shim.channel import Channel, resolve
from sampan.shim.connection import ExecHandle, NotBegun, ShimConnection
from sampan.shim.protocol import ExecRequest, ExitStatus, Message, ShimRequest
from sampan.shim.streams import ClientStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "ClientStream",
    "ExecHandle",
    "ExecRequest",
    "ExitStatus",
    "ShimConnection",
    "ShimRequest",
    "Zygote",
    "reconnect",
]

ZYGOTE_FD = 3
READY_TIMEOUT_S = 20.0
ATTEMPTS = 3  # of a spawn whose zygote died before a shim began
DEATH_NOTICE_S = 0.5  # between a broken request and the fork server's death being seen
SHORT_LIFE_S = 1.0
SHORT_LIVES = 3  # so many in a row, and the next successor waits RETRY_S
RETRY_S = 1.0


async def reconnect(socket_path: str) -> ShimConnection:
    """Connect to the shim that listens on `socket_path`.

    Raises:
        NotFound: none does. The container has ended (see `exit_record.read`) or died with its shim.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connect_unix(sock, socket_path)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        raise NotFound(f"no shim listens on {socket_path}") from error
    except BaseException:
        sock.close()
        raise
    connection = ShimConnection(sock, socket_path=socket_path)
    try:
        await connection.hello()
    except Unavailable as error:  # it ended while its backlog still took us
        raise NotFound(f"no shim listens on {socket_path}") from error
    except BaseException:
        await connection.close()
        raise
    return connection


def connect_unix(sock: socket.socket, path: str) -> None:
    """connect(2) to a path of any length: sun_path has 108 bytes, so go through its directory."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)


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

    def _receive(self, message: Message) -> None:
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


class Zygote:
    """The fork server as the daemon sees it: kept alive, asked for shims.

    `run_directory` exists; the zygote and its shims write what nobody expected (tracebacks) to
    `zygote.log` there. `on_restart` is called with the wait status of a zygote that had to be replaced.
    """

    def __init__(
        self, *, run_directory: str, on_restart: Callable[[int], None] | None = None
    ) -> None:
        self._run_directory = run_directory
        self._on_restart = on_restart
        self._server: ForkServer | None = None
        self._short_lives = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[str, ShimConnection] = {}

    @property
    def pid(self) -> int:
        """The present process; 0 when there is none."""
        return self._server.pid if self._server is not None else 0

    async def start(self) -> None:
        """Start the fork server; returns when it takes requests.

        Raises:
            Unavailable: it did not come up.
        """
        self._stopping = False
        self._server = ForkServer(self._run_directory, self._replace)
        await self._ready_server()

    async def stop(self) -> None:
        """End the fork server; shims and containers go on."""
        self._stopping = True
        server = self._server
        if server is not None:
            server.channel.close()
            await server.ended
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server = None

    async def spawn(
        self, request: ShimRequest, streams: Sequence[ClientStream] = ()
    ) -> ShimConnection:
        """Start a container; returns when its process has exec'd. The streams' sockets are closed here.

        If the last run of the same container is still being cleaned up, that is awaited first. A
        cancelled call kills the container as soon as it has started.

        Raises:
            RuntimeFailure: a stage failed; all that was made is undone.
            Unavailable: no fork server can be had, or the shim died while starting.
        """
        try:
            last = self._last.pop(request.id, None)
            if last is not None and last.exited.done():
                await last.gone
            for _ in range(ATTEMPTS):
                server = await self._ready_server()
                try:
                    connection = await self._attempt(server, request, streams)
                except NotBegun:
                    await asyncio.wait({server.ended}, timeout=DEATH_NOTICE_S)
                    continue
                self._remember(request.id, connection)
                return connection
            raise Unavailable("the fork server died on the request")
        finally:
            for stream in streams:
                stream.close()

    async def _attempt(
        self, server: ForkServer, request: ShimRequest, streams: Sequence[ClientStream]
    ) -> ShimConnection:
        ours, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        )
        connection = ShimConnection(
            ours, socket_path=request.socket, cgroup_path=request.cgroup_path
        )
        message: Message = {
            "type": "spawn",
            "request": request.to_spawn(),
            "streams": connection.adopt_streams(streams),
        }
        if request.trace:
            message["sent_at_ns"] = time.monotonic_ns()
        try:
            fds = [theirs.fileno(), *(stream.sock.fileno() for stream in streams)]
            await server.channel.send(message, fds)
        except OSError as error:
            await connection.close()
            raise NotBegun from error
        except BaseException:
            await connection.close()
            raise
        finally:
            theirs.close()
        try:
            await asyncio.shield(connection.started)
        except asyncio.CancelledError:
            self._keep(asyncio.create_task(abandon(connection)))
            raise
        except (SampanError, NotBegun):
            await connection.close()
            raise
        return connection

    def _remember(self, container_id: str, connection: ShimConnection) -> None:
        self._last[container_id] = connection

        def forget(_: object) -> None:
            if self._last.get(container_id) is connection:
                del self._last[container_id]

        connection.gone.add_done_callback(forget)

    async def _ready_server(self) -> ForkServer:
        """The fork server, once it takes requests; after a death that is its successor."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while self._server is not None and not self._stopping:
                    server = self._server
                    await asyncio.shield(server.ready)
                    if not server.ended.done():
                        return server
                    await asyncio.sleep(0 if self._server is not server else RETRY_S)
        except TimeoutError as error:
            raise Unavailable(
                "the fork server does not come up", hint=f"see {self._run_directory}/zygote.log"
            ) from error
        raise Unavailable("the fork server is not running")

    def _replace(self, dead: ForkServer, status: int) -> None:
        """Start the successor: at once, unless they keep dying."""
        if self._stopping:
            return
        if self._on_restart is not None:
            self._on_restart(status)
        loop = asyncio.get_running_loop()
        short = loop.time() - dead.born_at < SHORT_LIFE_S
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives < SHORT_LIVES:
            self._server = ForkServer(self._run_directory, self._replace)
        else:
            self._keep(loop.create_task(self._replace_later()))

    async def _replace_later(self) -> None:
        await asyncio.sleep(RETRY_S)
        self._server = ForkServer(self._run_directory, self._replace)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def abandon(connection: ShimConnection) -> None:
    """Kill a container that nobody waits for any more, once it has started."""
    await asyncio.wait({connection.started})
    if connection.started.exception() is None:
        await connection.signal(signal.SIGKILL)
        await connection.exited


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
