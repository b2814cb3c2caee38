"""A container's process from the first request to its end, and again by its restart policy.

It is ended in `stopping` and paused in `freezing`.

What happens in a start, in order, and undone in reverse when a later step fails:
address → files → OCI configuration → shim and process. The end of a container is noted by
`note_end`, whoever caused it, in one place and without an await; the restart policy is asked there.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from sampan.engine import health, image_mounts, restarts, sharing
from sampan.engine.bundle import Bundles
from sampan.engine.container import Container, Event, Status
from sampan.engine.freezing import Freezing
from sampan.engine.order import Order
from sampan.engine.requester import by_nobody
from sampan.engine.restarts import Restarts
from sampan.engine.services import Services
from sampan.engine.start_failures import exit_code_of, explain
from sampan.engine.start_gate import StartGate
from sampan.engine.stopping import Stopping
from sampan.engine.trace import StartTrace
from sampan.engine.volume_directories import unbind
from sampan.errors import Conflict, NotModified, RuntimeFailure, SampanError
from sampan.shim.client import ExitStatus, ShimConnection

log = logging.getLogger(__name__)


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
        self._gate = StartGate()
        self.order = Order(services.registry)
        self._restarts = Restarts(
            self._start_again, lambda container: self.order.reached(container, patient=True)
        )
        self.watchers: list[Watcher] = [self.order]
        self.freezing = Freezing(services, self)
        self.stopping = Stopping(services, self)

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
        await self.turn(container)
        async with container.lock:
            _check_startable(container)
            container.record.restart_count, container.restart_delay_s = 0, 0.0
            container.record.unhealthy_restarts = 0
            await self._run(container)
        await self._attach_late(container)

    async def turn(self, container: Container) -> None:
        """Wait for those after which the container starts; a `stop` or `rm` of it ends that, and nothing
        is lost when it is cancelled.

        Raises:
            NotModified, Conflict: as `start`; or it was stopped.
            NotFound: it was removed.
        """
        if container.record.terms.after:
            _check_startable(container)
            await self.order.reached(container, patient=False)

    async def _run(self, container: Container) -> None:
        """Start what may be started; its lock is held."""
        trace = StartTrace(enabled=self._services.options.trace_start)
        if container.last_shim is not None:
            await container.last_shim.gone
            container.last_shim = None
        try:
            async with self._gate:
                trace.mark("gate")
                shim = await self._launch(container, trace)
        except SampanError as failure:
            explain(failure)
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
        self.tell_halted(container)
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
        self.note_stopped(container)
        self._restarts.cancel(container)
        async with container.lock:
            if container.state.restarting:
                self._restarts.cancel(container)
                container.move(Event.RESTART_DROPPED)
                self._services.registry.save(container)
                container.resolve("not-running", "next-exit")

    def note_stopped(self, container: Container) -> None:
        """Remember that it was stopped by hand, over a restart of the daemon and of the machine too."""
        record = container.record
        if record.recycled or not record.manually_stopped:
            matters = record.recycled or record.host_config.restart_policy.name not in ("", "no")
            record.manually_stopped, record.recycled = True, False
            if matters:
                self._services.registry.save(container)

    def tell_running(self, container: Container) -> None:
        """Tell the watchers that the container's process runs."""
        for watcher in self.watchers:
            by_nobody(watcher.running, container)

    def tell_halted(self, container: Container) -> None:
        """Tell the watchers that the container's process has ended, or is frozen."""
        for watcher in self.watchers:
            watcher.halted(container)

    async def restart(
        self, container: Container, *, signal_name: str | None, timeout_s: int | None
    ) -> None:
        """Stop, if it runs, and start."""
        container.restarting = True
        try:
            if container.state.counts_as_running:
                await self.stopping.stop(container, signal_name=signal_name, timeout_s=timeout_s)
            await self.start(container)
        finally:
            container.restarting = False
        self.emit(container, "restart")

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
