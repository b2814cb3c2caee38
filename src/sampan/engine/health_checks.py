"""Health checks while containers run: when each is due, its process, what comes of it.

A check by a command is an exec like any other, with docker's events. Its output comes over a socket pair of which the
engine reads OUTPUT_BYTES and then hangs up: what the check writes beyond that costs the engine nothing.
One check of a container at a time; the next is planned when the process tree of the last one is gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sampan.engine import health, health_probes
from sampan.engine.container import Status
from sampan.engine.model import ExecConfig
from sampan.errors import Conflict, SampanError
from sampan.shim.streams import ClientStream

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.execs import Execs
    from sampan.engine.lifecycle import Lifecycle
    from sampan.engine.model import HealthConfig
    from sampan.engine.registry import Registry

log = logging.getLogger(__name__)

Outcome = tuple[int, str]  # exit code, output
Run = Callable[[], Coroutine[Any, Any, Outcome]]
Note = Callable[["Container", health.CheckResult], None]

# The output is complete when the check's process has ended; a lost hang-up is not waited for longer.
LAST_OUTPUT_S = 1.0
FRESH_NS = 1_000_000_000  # a container that runs for less has just been started


class HealthChecks:
    """The checks of all containers; a `Watcher` of the lifecycle."""

    def __init__(self, registry: Registry, lifecycle: Lifecycle, execs: Execs) -> None:
        self._registry = registry
        self._lifecycle = lifecycle
        self._execs = execs
        self._monitors: dict[str, Monitor] = {}
        self.judges: list[Callable[[Container], None]] = []
        """Called after each result, which is in the container's state then."""

    def running(self, container: Container) -> None:
        """Begin the checks of a container that has one."""
        self.halted(container)
        check = container.config.healthcheck
        if check is None or container.state.health is None:
            return
        run = self._probe(container, check) or self._command(container)
        self._monitors[container.id] = Monitor(container, check, run, self._note)

    def _probe(self, container: Container, check: HealthConfig) -> Run | None:
        """A probe that needs no process."""
        target = health_probes.target(check)
        if target is None:
            return None

        async def run() -> Outcome:
            if container.shim is None:
                raise Conflict(f"Container {container.id} is not running")
            return await health_probes.probe(target, container.shim.pidfd)

        return run

    def _command(self, container: Container) -> Run:
        """A check that is a command."""
        arguments = health.command(container.config)
        config = ExecConfig(cmd=arguments, attach_stdout=True, attach_stderr=True)

        async def run() -> Outcome:
            output = Output()
            try:
                exit_code = await self._execs.run(container.id, config, output.stream())
                await asyncio.wait({output.complete}, timeout=LAST_OUTPUT_S)
                return exit_code, output.text
            finally:
                output.close()

        return run

    def halted(self, container: Container) -> None:
        """Check no more; a check that is under way is ended, and does not count."""
        monitor = self._monitors.pop(container.id, None)
        if monitor is not None:
            monitor.stop()

    async def close(self) -> None:
        """End all; the next engine goes on with what was written."""
        monitors = list(self._monitors.values())
        self._monitors.clear()
        for monitor in monitors:
            monitor.stop()
        tasks = [monitor.task for monitor in monitors if monitor.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_OUTPUT_S)

    def _note(self, container: Container, result: health.CheckResult) -> None:
        """Count a result. Only a change of the status is written to the database."""
        state, check = container.state, container.config.healthcheck
        if state.health is None or check is None or state.status is not Status.RUNNING:
            return
        before = state.health.status
        state.health = health.judged(state.health, check, result, started_ns=state.started_ns)
        if state.health.status is not before:
            self._registry.save(container)
            self._lifecycle.emit(container, f"health_status: {state.health.status.value}")
            self._lifecycle.order.wake()
        for judge in self.judges:
            judge(container)


class Monitor:
    """One container's checks, from its start to its end or its pause.

    `run` makes one check, and is cancelled when it takes too long; `note` gets each result.
    """

    def __init__(self, container: Container, check: HealthConfig, run: Run, note: Note) -> None:
        self._container = container
        self._check = check
        self._run = run
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._processes: set[asyncio.Task[Outcome]] = set()
        self._timer = self._loop.call_later(self._first_pause_s(), self._begin)
        self.task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """No further check; one that is under way is killed and gives no result."""
        self._timer.cancel()
        if self.task is not None:
            self.task.cancel()

    def _pause_s(self) -> float:
        state = self._container.state
        status = state.health.status if state.health else health.HealthStatus.STARTING
        ran_ns = time.time_ns() - state.started_ns
        return health.pause_ns(self._check, status, ran_ns=ran_ns) / 1e9

    def _first_pause_s(self) -> float:
        """That of a container which ran before is shortened by chance: a hundred that a new engine
        finds are not checked in the same moment."""
        ran_before = time.time_ns() - self._container.state.started_ns > FRESH_NS
        return self._pause_s() * (random.uniform(0.5, 1.0) if ran_before else 1.0)

    def _begin(self) -> None:
        self.task = self._loop.create_task(self._check_once())
        self.task.add_done_callback(self._plan_next)

    def _plan_next(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("container %s: its health check failed: %r", self._container.id, error)
        self._timer = self._loop.call_later(self._pause_s(), self._begin)

    async def _check_once(self) -> None:
        """Make one check, note what came of it, and see its processes gone."""
        start_ns = time.time_ns()
        process = self._loop.create_task(self._run())
        self._processes.add(process)
        process.add_done_callback(self._reap)
        try:
            limit_s = health.timeout_ns(self._check) / 1e9
            done, _ = await asyncio.wait({process}, timeout=limit_s)
            if done:
                exit_code, text = _outcome(process)
            else:
                exit_code, text = health.NO_EXIT_CODE, health.timeout_text(self._check)
            result = health.CheckResult(
                start_ns=start_ns, end_ns=time.time_ns(), exit_code=exit_code, output=text
            )
            self._note(self._container, result)
        finally:
            process.cancel()
        await asyncio.wait({process})

    def _reap(self, process: asyncio.Task[Outcome]) -> None:
        self._processes.discard(process)
        if not process.cancelled():
            process.exception()  # told by the result, or nobody waits for it any more


def _outcome(process: asyncio.Task[Outcome]) -> Outcome:
    """Exit code and output of a check that has ended, or why there are none."""
    try:
        return process.result()
    except SampanError as failure:
        return health.NO_EXIT_CODE, failure.message


class Output:
    """What a check writes: the first OUTPUT_BYTES of it. `complete` is resolved at its end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ours, self._theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC
        )
        self._ours.setblocking(False)
        self._data = bytearray()
        self._loop.add_reader(self._ours.fileno(), self._read)
        self.complete: asyncio.Future[None] = self._loop.create_future()

    def stream(self) -> ClientStream:
        """The other end, for the process; both streams together, as they come."""
        return ClientStream(self._theirs, raw=True, detach_keys=b"")

    @property
    def text(self) -> str:
        """What was written; cut with docker's mark when it was too long."""
        cut = health.CUT_MARK if len(self._data) > health.OUTPUT_BYTES else ""
        return self._data[: health.OUTPUT_BYTES].decode(errors="replace") + cut

    def close(self) -> None:
        """Hang up; the process goes on, and what it writes is dropped by its keeper."""
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours.fileno())
            self._ours.close()
        if not self.complete.done():
            self.complete.set_result(None)

    def _read(self) -> None:
        try:
            data = self._ours.recv(health.OUTPUT_BYTES + 1 - len(self._data))
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        self._data += data
        if not data or len(self._data) > health.OUTPUT_BYTES:
            self.close()
