"""Further processes in containers: made, started, looked at; forgotten some time after their end."""

from __future__ import annotations

import asyncio
import secrets
import time

from sampan.engine import spec
from sampan.engine.container import Container, Status
from sampan.engine.detach_keys import parse_detach_keys
from sampan.engine.lifecycle import Lifecycle
from sampan.engine.model import ExecConfig
from sampan.engine.requester import by_nobody
from sampan.engine.restarts import restarting_text
from sampan.engine.services import Services
from sampan.engine.start_failures import exit_code_of
from sampan.engine.terms import LONGEST_NS
from sampan.engine.validation import as_list
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError
from sampan.linux.cgroups.leaf import Leaf
from sampan.linux.cgroups.manager import open_cgroup
from sampan.shim.client import ExecHandle, ExecRequest
from sampan.shim.exec_order import leaf_name
from sampan.shim.streams import DEFAULT_DETACH_KEYS, ClientStream

# How long an ended exec can still be inspected; dockerd keeps it as long.
KEPT_S = 300.0
SWEEP_S = 30.0
BEGIN_TIMEOUT_S = 10.0
KILLED = 137  # 128 + SIGKILL


class Exec:
    """A process to be, that is or that was. `exit_code` is None until it ended."""

    def __init__(self, id: str, container: Container, config: ExecConfig) -> None:
        self.id = id
        self.container = container
        self.config = config
        self.arguments = as_list(config.cmd)
        self.running = False
        self.started = False
        self.exit_code: int | None = None
        self.pid = 0
        self.handle: ExecHandle | None = None
        self.ended_at = 0.0
        self.lease = ""
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def open_stdin(self) -> bool:
        return self.config.attach_stdin


class Execs:
    """All execs of one engine, in memory: they end with the containers that they are in."""

    def __init__(self, services: Services, lifecycle: Lifecycle) -> None:
        self._services = services
        self._lifecycle = lifecycle
        self._execs: dict[str, Exec] = {}
        self._next_sweep = 0.0

    async def create(self, reference: str, config: ExecConfig) -> str:
        """Note down a process to start; return its ID.

        Raises:
            NotFound, Conflict, InvalidArgument: dockerd's texts.
        """
        arguments = as_list(config.cmd)
        if not arguments:
            raise InvalidArgument("No exec command specified")
        container = self._services.registry.find(reference)
        _check_running(container)
        if any("\0" in text for text in [*arguments, *config.env, config.working_dir]):
            raise InvalidArgument("a NUL byte cannot be part of a process's arguments")
        if config.detach_keys:
            parse_detach_keys(config.detach_keys)
        if not 0 <= config.timeout <= LONGEST_NS:
            raise InvalidArgument(f"invalid Timeout: {config.timeout} ns is out of range")
        self._forget_old()
        entry = Exec(secrets.token_hex(32), container, config)
        with self._services.leases.joining() as entry.lease:
            self._execs[entry.id] = entry
        container.exec_ids[entry.id] = None
        self._emit(entry, f"exec_create: {' '.join(arguments)}")
        return entry.id

    def get(self, exec_id: str) -> Exec:
        """The exec with this ID or unique prefix of it.

        Raises:
            NotFound: dockerd's text.
        """
        entry = self._execs.get(exec_id)
        if entry is None or not self._services.registry.holds(entry.container):
            raise NotFound(f"No such exec instance: {exec_id}")
        return entry

    async def start(
        self,
        exec_id: str,
        *,
        console_size: tuple[int, int] | None = None,
        stream: ClientStream | None = None,
    ) -> None:
        """Start the process; back when it has exec'd. The stream is handed over, or closed.

        Raises:
            Conflict: it was started before, or its container does not run.
            RuntimeFailure: it could not be started.
        """
        try:
            entry = self.get(exec_id)
            if entry.started:
                state = "is already running" if entry.running else "has already run"
                raise Conflict(f"Error: Exec command {entry.id} {state}")
            _check_running(entry.container)
            shim = entry.container.shim
            if shim is None:
                raise Conflict(f"Container {entry.container.id} is not running")
            entry.started = entry.running = True
            if stream is not None:
                self._prepare(entry, stream)
            self._emit(entry, f"exec_start: {' '.join(entry.arguments)}")
        except BaseException:
            if stream is not None:
                stream.close()
            raise
        try:
            handle = await self._services.zygote.exec(
                shim,
                self._request(entry, console_size),
                stream,
                on_exit=lambda exit_code: by_nobody(self._ended, entry, exit_code),
            )
        except BaseException as failure:
            self._ended(
                entry, exit_code_of(failure) if isinstance(failure, SampanError) else KILLED
            )
            if stream is not None:
                stream.close()
            raise
        if entry.running:
            entry.handle, entry.pid = handle, handle.pid
        entry.begun.set()

    async def run(self, container_id: str, config: ExecConfig, stream: ClientStream) -> int:
        """Run a process to its end and forget it; return its exit code. The stream is handed over.

        Cancelled, it kills the process with all its descendants, and waits until they are gone.

        Raises:
            NotFound, Conflict, InvalidArgument, RuntimeFailure: it could not be started.
        """
        entry = await self._created(container_id, config, stream)
        # Not to be cancelled half way: nobody would know of the process then.
        start = asyncio.ensure_future(self.start(entry.id, stream=stream))
        try:
            await asyncio.shield(start)
            await entry.ended.wait()
        except asyncio.CancelledError:
            await asyncio.wait({start})
            if start.exception() is None:
                await self._end_tree(entry)
            raise
        finally:
            self._forget(entry)
        return entry.exit_code if entry.exit_code is not None else KILLED

    async def _created(self, container_id: str, config: ExecConfig, stream: ClientStream) -> Exec:
        try:
            return self._execs[await self.create(container_id, config)]
        except BaseException:
            stream.close()
            raise

    async def end(self, exec_id: str) -> None:
        """End an exec's process with all that came of it, and forget it; back when they are gone.

        Also what it left behind when it has ended itself, where that is known (`linux.cgroups.leaf`).

        Raises:
            NotFound: there is none of that ID.
            Unavailable: who keeps it is gone, and the process with that.
        """
        entry = self.get(exec_id)
        if entry.started:
            await entry.begun.wait()
            if entry.running:
                await self._end_tree(entry)
            await asyncio.to_thread(_end_leaf, entry)
        self._forget(entry)

    def under(self, lease: str) -> list[str]:
        """The IDs of those that were made under a lease, and have not ended."""
        return [
            entry.id
            for entry in self._execs.values()
            if entry.lease == lease and entry.exit_code is None
        ]

    async def _end_tree(self, entry: Exec) -> None:
        if entry.handle is not None:
            await entry.handle.kill_tree()
        await entry.ended.wait()

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of the process's terminal.

        A client sends the size while its start is under way, so that is waited for, as dockerd does.

        Raises:
            Conflict: it does not run.
        """
        entry = self.get(exec_id)
        try:
            async with asyncio.timeout(BEGIN_TIMEOUT_S):
                await entry.begun.wait()
        except TimeoutError:
            pass
        if entry.handle is None or not entry.running:
            raise Conflict(f"exec process {exec_id} is not running")
        await entry.handle.resize(rows, columns)

    def _prepare(self, entry: Exec, stream: ClientStream) -> None:
        config = entry.config
        stream.raw = stream.raw or config.tty
        stream.stdin = config.attach_stdin
        stream.stdout = config.attach_stdout or config.tty
        stream.stderr = config.attach_stderr
        stream.detach_keys = (
            parse_detach_keys(config.detach_keys) if config.detach_keys else DEFAULT_DETACH_KEYS
        )
        stream.on_end = lambda reason: (
            self._emit(entry, "exec_detach") if reason == "detached" else None
        )

    def _request(self, entry: Exec, console_size: tuple[int, int] | None) -> ExecRequest:
        record = entry.container.record
        profile = None if entry.config.privileged else self._services.profiles.of(record)
        size = console_size or entry.config.console_size
        return ExecRequest(
            id=entry.id,
            process=spec.exec_process(
                record,
                entry.config,
                entry.arguments,
                self._services.networking.link_variables(entry.container),
            ),
            terminal=entry.config.tty,
            seccomp_program=profile.program if profile else None,
            console_size=size if size and size != (0, 0) else None,
            timeout_s=entry.config.timeout / 1e9,
            adopts_orphans=bool(entry.config.timeout or entry.lease),
        )

    def _ended(self, entry: Exec, exit_code: int) -> None:
        if not entry.running:
            return  # given up before, when its request was cancelled
        entry.running, entry.exit_code, entry.pid = False, exit_code, 0
        entry.handle = None
        entry.begun.set()
        entry.ended.set()
        entry.ended_at = time.monotonic()
        entry.container.exec_ids.pop(entry.id, None)
        self._emit(entry, "exec_die", exitCode=str(exit_code))

    def _emit(self, entry: Exec, action: str, **attributes: str) -> None:
        self._lifecycle.emit(entry.container, action, execID=entry.id, **attributes)

    def _forget_old(self) -> None:
        """Drop what ended long ago, or never will: its container is gone or runs no more.

        Not each time: there may be thousands.
        """
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_S
        horizon = now - KEPT_S
        for entry in list(self._execs.values()):
            ended_long_ago = entry.exit_code is not None and entry.ended_at < horizon
            if ended_long_ago or not self._services.registry.holds(entry.container):
                self._forget(entry)

    def _forget(self, entry: Exec) -> None:
        self._execs.pop(entry.id, None)
        entry.container.exec_ids.pop(entry.id, None)


def _end_leaf(entry: Exec) -> None:
    leaf = Leaf(open_cgroup(entry.container.record.cgroup_path), leaf_name(entry.id))
    leaf.kill()
    leaf.await_end()
    leaf.remove()


def _check_running(container: Container) -> None:
    if container.state.status is Status.PAUSED:
        raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
    if container.state.restarting:
        raise Conflict(restarting_text(container))
    if not container.state.running:
        raise Conflict(f"Container {container.id} is not running")
