"""Starting, stopping, pausing: a container's process from the first request to its end.

What happens in a start, in order, and undone in reverse when a later step fails:
address → files → OCI configuration → shim and process. The end of a container is noted by
`note_end`, whoever caused it, in one place and without an await; the restart policy is asked there.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import logging
import signal
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from sampan.engine import defaults, health, image_mounts, restarts, sharing
from sampan.engine.bundle import Bundles
from sampan.engine.container import Container, Event, Status
from sampan.engine.order import Order
from sampan.engine.post_mortem import sent
from sampan.engine.requester import by_nobody
from sampan.engine.restarts import Restarts
from sampan.engine.services import Services
from sampan.engine.signals import DEFAULT_STOP_SIGNAL, signal_number
from sampan.engine.trace import StartTrace
from sampan.engine.volume_directories import unbind
from sampan.errors import Conflict, NotModified, RuntimeFailure, SampanError, Unavailable
from sampan.linux.cgroups.manager import open_cgroup
from sampan.linux.signal_masks import is_lost_on
from sampan.shim.client import ExitStatus, ShimConnection

log = logging.getLogger(__name__)

COMMAND_NOT_FOUND = 127
COMMAND_NOT_EXECUTABLE = 126
START_FAILED = 128
# A container with this label is given its whole time-out at `stop`, whether it listens or not.
STOP_LABEL, STOP_WAITS = "dev.sampan.stop", "wait"
# After SIGKILL a process ends, unless the kernel itself hangs on something (a dead NFS server).
KILL_TIMEOUT_S = 30.0


class Watcher(Protocol):
    """Who is told which containers run: after a start, an unpausing, and the finding of a running one."""

    def running(self, container: Container) -> None:
        """Its process runs."""

    def halted(self, container: Container) -> None:
        """Its process has ended, or is frozen."""


class Lifecycle:
    """Moves containers between statuses. `remove` is called for an ended container with --rm."""

    def __init__(self, services: Services, remove: Any) -> None:
        self._services = services
        self._bundles = Bundles(services)
        self._remove = remove
        self._tasks: set[asyncio.Task[None]] = set()
        self.order = Order(services.registry)
        self._restarts = Restarts(
            self._start_again, lambda container: self.order.reached(container, patient=True)
        )
        self.watchers: list[Watcher] = [self.order]

    async def close(self) -> None:
        """Let go of all containers; they run on."""
        await self._restarts.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for container in self._services.registry:
            if container.shim is not None:
                await container.shim.close()

    # Start

    async def start(self, container: Container) -> None:
        """Start the container's process; back when it has exec'd.

        Raises:
            NotModified: it runs already.
            Conflict: it is paused or being removed, or starts after one that does not run.
            RuntimeFailure, SampanError: a stage failed, and everything is as before.
        """
        if container.record.terms.after:
            _check_startable(container)
            await self.order.reached(container, patient=False)
        async with container.lock:
            _check_startable(container)
            container.record.restart_count, container.restart_delay_s = 0, 0.0
            container.record.unhealthy_restarts = 0
            await self._run(container)
        await self._attach_late(container)

    async def _run(self, container: Container) -> None:
        """Start what may be started; its lock is held."""
        trace = StartTrace(enabled=self._services.options.trace_start)
        if container.last_shim is not None:
            await container.last_shim.gone
            container.last_shim = None
        try:
            shim = await self._launch(container, trace)
        except SampanError as failure:
            _explain(failure)
            self._start_failed(container, failure)
            raise
        except BaseException as error:
            # A bug or the daemon's end: whoever waits for the container hears of it all the same.
            self._start_failed(container, RuntimeFailure("start", f"start failed: {error!r}"))
            raise
        self._started(container, shim)
        trace.finish(container.id, shim.trace)

    async def _launch(self, container: Container, trace: StartTrace) -> ShimConnection:
        apparmor, networking = self._services.apparmor, self._services.networking
        container.record.apparmor_profile = apparmor.profile_of(container.host_config)
        await apparmor.ensure(container.record.apparmor_profile)
        endpoints = networking.connect(container)
        if endpoints:
            # A daemon that is killed from here on leaves a container that may have come to run, and
            # the next one must not give its address to another.
            self._services.registry.save(container)
        bound = await self._services.volumes.mount(container)
        try:
            bound |= image_mounts.place(
                container, self._services.snapshots, self._services.volumes.places
            )
            bound |= sharing.place_shm(
                container,
                self._services.registry.find,
                lambda: self._services.volumes.place(container, "shm"),
            )
            request = self._bundles.prepare(container, trace, bound)
            request.endpoints = [endpoint.to_dict() for endpoint in endpoints]
            request.resolver = networking.asks_resolver(container)
            streams, container.parked = container.parked, []
            trace.mark("request")
            return await self._services.zygote.spawn(request, streams)
        except OSError as error:
            raise RuntimeFailure(
                "bundle",
                f"the container's files cannot be written: {error.strerror}: {error.filename}",
                path=error.filename,
                errno=error.errno,
            ) from error
        finally:
            for place in bound.values():
                unbind(place)

    def _started(self, container: Container, shim: ShimConnection) -> None:
        state = container.state
        container.move(Event.STARTED)
        state.pid, state.started_ns = shim.pid, shim.started_at_ns
        state.exit_code, state.error, state.oom_killed, state.finished_ns = 0, "", False, 0
        container.record.manually_stopped = False
        container.last_signal = None
        state.health = health.begun(container.config, state.health)
        self.watch(container, shim)
        for endpoint in container.record.endpoints.values():
            self.emit_network(container, "connect", endpoint.network, endpoint.network_id)
        self._services.volumes.started(container)
        self.emit(container, "start")
        self._services.registry.save(container)  # told first, see note_end
        self.tell_running(container)

    def _start_failed(self, container: Container, failure: SampanError) -> None:
        self._services.networking.disconnect(container)
        container.close_parked()
        container.state.error = failure.message
        container.state.exit_code = exit_code_of(failure)
        if not (container.state.restarting and self._restart_later(container, ran_s=0.0)):
            container.move(Event.START_FAILED)
        self._services.volumes.ended(container, ran=False)
        self._services.history.not_started(container)
        self._services.registry.save(container)
        log.info("container %s did not start: %s", container.id, failure.message)
        if container.host_config.auto_remove:
            self._own(self._remove_with_rm(container))
        else:
            container.resolve("not-running", "next-exit")

    async def _attach_late(self, container: Container) -> None:
        """Hand over the clients that came while the container was starting."""
        streams, container.parked = container.parked, []
        for stream in streams:
            if container.shim is None:
                stream.close()
            else:
                await container.shim.attach(stream)

    # End

    def watch(self, container: Container, shim: ShimConnection) -> None:
        """Note the container's end when it comes."""
        container.shim = shim
        shim.on_log_lost = lambda reason: log.error(
            "container %s: its log cannot be written: %s", container.id, reason
        )
        shim.exited.add_done_callback(
            lambda future: (
                None if future.cancelled() else self._ended(container, shim, future.result())
            ),
            context=contextvars.Context(),  # who started it did not ask for its end
        )

    def _ended(self, container: Container, shim: ShimConnection, status: ExitStatus) -> None:
        if container.shim is not shim:
            return
        container.shim, container.last_shim = None, shim
        self.note_end(container, status)
        coming_back = container.restarting or container.state.restarting
        if container.host_config.auto_remove and not coming_back:
            self._own(self._remove_with_rm(container))

    def note_end(self, container: Container, status: ExitStatus, *, told: bool = False) -> None:
        """Record how the container ended and tell all who wait; `told`: but not as an event once more."""
        state = container.state
        started_ns = state.started_ns
        state.pid, state.exit_code = 0, status.exit_code
        state.finished_ns, state.oom_killed = status.exited_at_ns, status.oom_killed
        state.error = status.error
        state.health = health.halted(state.health)
        for watcher in self.watchers:
            watcher.halted(container)
        ran_s = max(0, status.exited_at_ns - started_ns) / 1e9
        self._services.history.ended(container, status)
        if container.restarting or not self._restart_later(container, ran_s=ran_s):
            container.move(Event.ENDED)
        networks = list(container.record.endpoints.values())
        self._services.networking.disconnect(container)
        # Told first: a daemon that is killed in between leaves the next one to note the end, which sees
        # that it was told.
        if not told:
            if status.oom_killed:
                self.emit(container, "oom")
            self.emit(
                container, "die", exitCode=str(status.exit_code), execDuration=str(int(ran_s))
            )
        self._services.registry.save(container)
        for endpoint in networks:
            self.emit_network(container, "disconnect", endpoint.network, endpoint.network_id)
        self._services.volumes.ended(container)
        container.resolve("not-running", "next-exit")

    async def _remove_with_rm(self, container: Container) -> None:
        try:
            await self._remove(container)
        except SampanError as error:
            log.error("container %s: it could not be removed: %s", container.id, error)

    # Restart policies

    def _restart_later(self, container: Container, *, ran_s: float) -> bool:
        """Plan the restart of a container that has just ended, if its policy wants one.

        Not saved here: that is one write with the end.
        """
        record, state = container.record, container.state
        recycled, record.recycled = record.recycled, False
        if not recycled and not restarts.wants_restart(
            record.host_config.restart_policy,
            exit_code=state.exit_code,
            restart_count=record.restart_count,
            manually_stopped=record.manually_stopped,
        ):
            return False
        container.move(Event.RESTART_DUE)
        record.restart_count += 1
        if recycled:
            self._restarts.schedule(container, 0.0)
            return True
        container.restart_delay_s = restarts.following_delay_s(container.restart_delay_s, ran_s)
        self._restarts.schedule(container, container.restart_delay_s)
        return True

    async def _start_again(self, container: Container) -> None:
        """The restart that was planned, unless somebody was faster."""
        async with container.lock:
            if not (container.state.restarting and self._services.registry.holds(container)):
                return
            await self._run(container)
        await self._attach_late(container)

    def start_by_policy(self, containers: Iterable[Container]) -> None:
        """Start what does not run and should, by its restart policy; when the engine opens.

        What its former daemon planned goes on; what ended before then begins anew.
        """
        self._restarts.open()
        for container in restarts.due(containers):
            if not container.state.restarting:
                container.move(Event.RESTART_DUE)
                container.record.restart_count = 0
                container.record.manually_stopped = False
                self._services.registry.save(container)
            self._restarts.schedule(container, 0.0)

    async def drop_restart(self, container: Container) -> None:
        """Leave a container as it is that waits for its restart; by hand, so it stays so.

        A start that is under way is waited for: the container may run then.
        """
        self._note_stopped(container)
        self._restarts.cancel(container)
        async with container.lock:
            if container.state.restarting:
                self._restarts.cancel(container)
                container.move(Event.RESTART_DROPPED)
                self._services.registry.save(container)
                container.resolve("not-running", "next-exit")

    def _note_stopped(self, container: Container) -> None:
        """Remember that it was stopped by hand, over a restart of the daemon and of the machine too."""
        record = container.record
        if record.recycled or not record.manually_stopped:
            matters = record.recycled or record.host_config.restart_policy.name not in ("", "no")
            record.manually_stopped, record.recycled = True, False
            if matters:
                self._services.registry.save(container)

    async def recycle(self, container: Container) -> None:
        """Stop a running container that then starts again, whatever its restart policy is.

        That it will is written down first: a daemon that dies on the way leaves it to the next one.

        Raises:
            RuntimeFailure: the kernel does not end it.
        """
        container.record.recycled = True
        self._services.registry.save(container)
        number, limit_s = _usual_stop(container)
        ended = container.wait("next-exit")
        try:
            if await self._signal_in_vain(container, number) and limit_s != 0:
                limit_s = 0.0
            if not await _within(ended, limit_s):
                await self._signal(container, signal.SIGKILL)
                if not await _within(ended, KILL_TIMEOUT_S):
                    raise _not_ended(container)
        finally:
            ended.cancel()

    async def expire(self, container: Container) -> None:
        """End a container whose time is over: as by a stop, but for no longer than usual."""
        self.emit(container, "expire")
        _, limit_s = _usual_stop(container)
        longest_s = defaults.STOP_TIMEOUT_S
        timeout_s = longest_s if limit_s is None else min(int(limit_s), longest_s)
        try:
            await self.stop(container, signal_name=None, timeout_s=timeout_s)
        except NotModified:
            pass

    def tell_running(self, container: Container) -> None:
        """Tell the watchers that the container's process runs."""
        for watcher in self.watchers:
            by_nobody(watcher.running, container)

    # Stop, kill, pause

    async def stop(
        self, container: Container, *, signal_name: str | None, timeout_s: int | None
    ) -> None:
        """Ask the process to end, and make it after the time-out (-1: never).

        Raises:
            NotModified: it does not run.
        """
        if container.state.restarting:
            await self.drop_restart(container)
            if not container.state.running:
                self.emit(container, "stop")
                return
        if not container.state.running:
            raise NotModified(f"container {container.id} is not running")
        number = signal_number(signal_name or container.config.stop_signal or DEFAULT_STOP_SIGNAL)
        if timeout_s is None:
            preset = container.config.stop_timeout
            timeout_s = defaults.STOP_TIMEOUT_S if preset is None else preset
        self._note_stopped(container)
        ended = container.wait("next-exit")
        try:
            if await self._signal_in_vain(container, number) and timeout_s > 0:
                timeout_s = 0
            if not await _within(ended, None if timeout_s < 0 else float(timeout_s)):
                log.info("container %s did not end in %s s", container.id, timeout_s)
                await self.force_end(container)
        finally:
            ended.cancel()
        self.emit(container, "stop")

    async def force_end(self, container: Container) -> None:
        """Kill the process and wait for its end; no restart policy brings it back.

        Raises:
            RuntimeFailure: the kernel does not end it.
        """
        if container.state.restarting:
            await self.drop_restart(container)
        if not container.state.running:
            return
        self._note_stopped(container)
        ended = container.wait("not-running")
        try:
            await self._signal(container, signal.SIGKILL)
            if not await _within(ended, KILL_TIMEOUT_S):
                raise _not_ended(container)
        finally:
            ended.cancel()

    async def kill(self, container: Container, signal_name: str) -> None:
        """Send a signal to the container's first process; SIGKILL is waited for.

        A container that waits for its restart is left as it is, unless the signal is a message.

        Raises:
            InvalidArgument: no such signal.
            Conflict: it does not run.
        """
        number = signal_number(signal_name or "SIGKILL")
        by_hand = restarts.stops_by_hand(number)
        if container.state.restarting:
            if by_hand:
                await self.drop_restart(container)
            if not container.state.running:  # else its start was under way
                return
        if not container.state.running:
            raise Conflict(f"Container {container.id} is not running")
        if number == signal.SIGKILL:
            await self.force_end(container)
        else:
            if by_hand:
                self._note_stopped(container)
            await self._signal(container, number)

    async def restart(
        self, container: Container, *, signal_name: str | None, timeout_s: int | None
    ) -> None:
        """Stop, if it runs, and start."""
        container.restarting = True
        try:
            if container.state.counts_as_running:
                await self.stop(container, signal_name=signal_name, timeout_s=timeout_s)
            await self.start(container)
        finally:
            container.restarting = False
        self.emit(container, "restart")

    async def pause(self, container: Container) -> None:
        """Freeze every process of the container.

        Raises:
            Conflict: it does not run, or is paused.
        """
        async with container.lock:
            if container.state.status is Status.PAUSED:
                raise Conflict(f"Container {container.id} is already paused")
            if container.state.restarting:
                raise Conflict(restarting_text(container))
            if not container.state.running:
                raise Conflict(f"Container {container.id} is not running")
            await asyncio.to_thread(open_cgroup(container.record.cgroup_path).freeze)
            if container.state.running:
                container.move(Event.PAUSED)
                container.state.health = health.halted(container.state.health)
                for watcher in self.watchers:
                    watcher.halted(container)
                self._services.registry.save(container)
                self.emit(container, "pause")

    async def unpause(self, container: Container) -> None:
        """Let a paused container go on.

        Raises:
            Conflict: it is not paused.
        """
        async with container.lock:
            if container.state.status is not Status.PAUSED:
                raise Conflict(f"Container {container.id} is not paused")
            self._thaw(container)
            self.emit(container, "unpause")

    def _thaw(self, container: Container) -> None:
        open_cgroup(container.record.cgroup_path).thaw()
        if container.state.status is Status.PAUSED:
            container.move(Event.UNPAUSED)
            self._services.registry.save(container)
            self.tell_running(container)

    async def _signal_in_vain(self, container: Container, number: int) -> bool:
        """Deliver a signal; whether it can be told that nobody heard it, so that waiting is no use.

        Its first process is looked at before and after: one that comes to listen in between counts as listening.
        """
        pid = container.state.pid
        lost = container.config.labels.get(STOP_LABEL) != STOP_WAITS and is_lost_on(pid, number)
        await self._signal(container, number)
        return lost and is_lost_on(pid, number)

    async def _signal(self, container: Container, number: int) -> None:
        """Deliver a signal; a paused container is let go for the signals that end it."""
        if container.shim is None:
            return
        try:
            await container.shim.signal(number)
        except Unavailable:
            # The shim died; its container is being killed, and the end will be told like any other.
            return
        container.last_signal = sent(number)
        self.emit(container, "kill", signal=str(number))
        stop_signal = signal_number(container.config.stop_signal or DEFAULT_STOP_SIGNAL)
        if container.state.status is Status.PAUSED and number in (signal.SIGKILL, stop_signal):
            self._thaw(container)

    # Events

    def emit(self, container: Container, action: str, **attributes: str) -> None:
        """An event of this container: its labels, image and name are the attributes."""
        self._services.events.emit(
            "container",
            action,
            container.id,
            {
                **container.config.labels,
                "image": container.image[1],
                "name": container.name,
                **attributes,
            },
        )

    def emit_network(
        self, container: Container, action: str, network: str, network_id: str
    ) -> None:
        """The event of a network that a container joined or left."""
        known = self._services.networking.networks.get(network)
        self._services.events.emit(
            "network",
            action,
            network_id or (known.id if known else network),
            {
                "container": container.id,
                "name": network,
                "type": known.driver if known else "bridge",
            },
        )

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _usual_stop(container: Container) -> tuple[int, float | None]:
    """The signal that asks the container to end, and how long it may take; None for no limit."""
    number = signal_number(container.config.stop_signal or DEFAULT_STOP_SIGNAL)
    preset = container.config.stop_timeout
    limit_s = defaults.STOP_TIMEOUT_S if preset is None else preset
    return number, None if limit_s < 0 else float(limit_s)


def _not_ended(container: Container) -> RuntimeFailure:
    return RuntimeFailure(
        "kill", f"container {container.id} did not end {KILL_TIMEOUT_S:g} s after SIGKILL"
    )


def restarting_text(container: Container) -> str:
    """dockerd's refusal of what needs a process."""
    return f"Container {container.id} is restarting, wait until the container is running"


def exit_code_of(failure: SampanError) -> int:
    """The exit code of a container that did not start, as a shell counts."""
    number = failure.errno if isinstance(failure, RuntimeFailure) else None
    if isinstance(failure, RuntimeFailure) and failure.stage == "exec":
        if number in (errno.ENOENT, errno.ENOTDIR):
            return COMMAND_NOT_FOUND
        return COMMAND_NOT_EXECUTABLE
    return START_FAILED


def _explain(failure: SampanError) -> None:
    """Add dockerd's advice to the kernel's terse word for a file in a directory's place."""
    if not isinstance(failure, RuntimeFailure) or not failure.stage.startswith("mount"):
        return
    if failure.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        failure.hint = failure.hint or (
            "Are you trying to mount a directory onto a file (or vice-versa)? Check if the "
            "specified host path exists and is the expected type"
        )


def _check_startable(container: Container) -> None:
    match container.state.status:
        case Status.RUNNING | Status.RESTARTING:
            raise NotModified(f"container {container.id} is already running")
        case Status.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        case Status.REMOVING | Status.DEAD:
            raise Conflict("container is marked for removal and cannot be started")
        case Status.CREATED | Status.EXITED:
            pass


async def _within(future: asyncio.Future[Any], timeout_s: float | None) -> bool:
    """Whether the future is done in time; it is left as it is."""
    done, _ = await asyncio.wait({future}, timeout=timeout_s)
    return bool(done)
