"""The daemon's way to shims: start the zygote, spawn containers, find those of a former daemon.

zygote = Zygote(run_directory="/run/sampan", on_restart=log_it)
await zygote.start()                                  # before anything else: it is a fork server
connection = await zygote.spawn(request, streams)     # the container's process has exec'd
handle = await zygote.exec(connection, request)       # and a further one
status = await connection.exited                      # its log is complete
await zygote.stop()                                   # containers go on

connection = await reconnect(request.socket)          # in the next daemon
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from sampan.errors import NotFound, SampanError, Unavailable
from sampan.shim.connection import ShimConnection
from sampan.shim.conversation import Conversation, NotBegun
from sampan.shim.exec_handle import ExecHandle
from sampan.shim.exec_order import ExecOrder, ExecRequest
from sampan.shim.fork_server import ForkServer
from sampan.shim.protocol import ExitStatus, Message, ShimRequest
from sampan.shim.streams import ClientStream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

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


PeerT = TypeVar("PeerT", bound=Conversation)


class Order(Generic[PeerT]):
    """A message for the fork server: `fds` go along behind the far end of the peer's connection.

    `abandon` ends what nobody waits for any more.
    """

    def __init__(
        self,
        peer: PeerT,
        message: Message,
        theirs: socket.socket,
        fds: Sequence[int],
        abandon: Callable[[PeerT], Coroutine[None, None, None]] | None = None,
    ) -> None:
        self.peer = peer
        self.message = message
        self.theirs = theirs
        self.fds = fds
        self.abandon = abandon


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
        self._execs: set[ExecHandle] = set()

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
        """End the fork server; shims, containers and execs go on."""
        self._stopping = True
        for handle in list(self._execs):
            await handle.close()
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
            connection = await self._order(lambda: self._spawn_order(request, streams))
            self._remember(request.id, connection)
            return connection
        finally:
            for stream in streams:
                stream.close()

    async def exec(
        self,
        container: ShimConnection,
        request: ExecRequest,
        stream: ClientStream | None = None,
        on_exit: Callable[[int], None] | None = None,
    ) -> ExecHandle:
        """Start a further process in a container; returns when it has exec'd.

        Without a stream its input and output are /dev/null. On failure the stream stays open and the
        caller's, who tells the client through it; else it is closed here. `on_exit`: see ExecHandle.
        Cancelled, it leaves a process that may run; its exit is still told by `on_exit`.

        Raises:
            RuntimeFailure: it could not be started; stage "exec" with errno ENOENT or EACCES for
                the file itself.
            Unavailable: the container has ended, no fork server can be had, or the keeper died.
        """
        order, pidfd = container.exec_order(request)
        pidfd = os.dup(pidfd)  # the container may end while we wait
        try:
            handle = await self._order(lambda: self._exec_order(order, pidfd, stream, on_exit))
        finally:
            os.close(pidfd)
        if stream is not None:
            stream.close()
        return handle

    def _spawn_order(
        self, request: ShimRequest, streams: Sequence[ClientStream]
    ) -> Order[ShimConnection]:
        ours, theirs = control_pair()
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
        sockets = [stream.sock.fileno() for stream in streams]
        return Order(connection, message, theirs, sockets, abandon)

    def _exec_order(
        self,
        order: ExecOrder,
        pidfd: int,
        stream: ClientStream | None,
        on_exit: Callable[[int], None] | None,
    ) -> Order[ExecHandle]:
        ours, theirs = control_pair()
        handle = ExecHandle(ours, order.request["id"], on_exit, self._execs.discard)
        self._execs.add(handle)
        fds = [pidfd]
        if stream is not None:
            [order.stream] = handle.adopt_streams([stream])
            fds.append(stream.sock.fileno())
        return Order(handle, {"type": "exec", "order": order.to_dict()}, theirs, fds, None)

    async def _order(self, make: Callable[[], Order[PeerT]]) -> PeerT:
        """Have an order carried out; made anew for the next fork server if one dies before it began."""
        for _ in range(ATTEMPTS):
            server = await self._ready_server()
            try:
                return await self._attempt(server, make())
            except NotBegun:
                await asyncio.wait({server.ended}, timeout=DEATH_NOTICE_S)
        raise Unavailable("the fork server died on the request")

    async def _attempt(self, server: ForkServer, order: Order[PeerT]) -> PeerT:
        peer = order.peer
        try:
            await server.channel.send(order.message, [order.theirs.fileno(), *order.fds])
        except OSError as error:
            await peer.close()
            raise NotBegun from error
        except BaseException:
            await peer.close()
            raise
        finally:
            order.theirs.close()
        try:
            await asyncio.shield(peer.started)
        except asyncio.CancelledError:
            if order.abandon is not None:
                self._keep(asyncio.create_task(order.abandon(peer)))
            raise
        except (SampanError, NotBegun):
            await peer.close()
            raise
        return peer

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


def control_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
