"""What becomes of a container that its health check calls unhealthy: `--on-unhealthy restart|stop|none`.

A restart is its stop signal, its stop time-out, and a new start, as by a restart policy. Restarts in a row
come at growing distances, and there is a budget of them: a container that stays unhealthy is left as it is
when it is spent, for somebody to look at. A row ends when the container has been healthy for a while, or when
a client starts it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from sampan.engine.container import Status
from sampan.engine.health import HealthStatus
from sampan.errors import NotModified, SampanError

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.lifecycle import Lifecycle
    from sampan.engine.registry import Registry

log = logging.getLogger(__name__)

SECOND_PAUSE_S = 10.0  # the first restart is at once
LONGEST_PAUSE_S = 300.0
STEADY_NS = 600 * 1_000_000_000


def pause_s(restarts: int) -> float:
    """How long to wait before the next restart, after so many in a row."""
    if restarts == 0:
        return 0.0
    return min(SECOND_PAUSE_S * 2.0 ** min(restarts - 1, 16), LONGEST_PAUSE_S)


class Unhealthy:
    """Acts on results of health checks; a `Watcher` of the lifecycle."""

    def __init__(self, registry: Registry, lifecycle: Lifecycle) -> None:
        self._registry = registry
        self._lifecycle = lifecycle
        self._plans: dict[str, asyncio.Task[None]] = {}
        self._acting: dict[str, asyncio.Task[None]] = {}
        self._spent: set[str] = set()

    def running(self, container: Container) -> None:
        self._spent.discard(container.id)

    def halted(self, container: Container) -> None:
        """It ended or was paused: what was planned for it is void."""
        self._spent.discard(container.id)
        self._drop(container)

    def checked(self, container: Container) -> None:
        """A result of the container's check was noted."""
        health, wish = container.state.health, container.record.terms.on_unhealthy
        if health is None or wish.action == "none":
            return
        if health.status is HealthStatus.HEALTHY:
            self._drop(container)
            self._end_row(container)
        elif health.status is HealthStatus.UNHEALTHY and not self._has_plan(container):
            self._plan(container)

    async def close(self) -> None:
        """Plan nothing more. A restart that is under way is written down: the next engine ends it."""
        tasks = [*self._plans.values(), *self._acting.values()]
        self._plans.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has_plan(self, container: Container) -> bool:
        return container.id in self._plans or container.id in self._acting

    def _plan(self, container: Container) -> None:
        wish = container.record.terms.on_unhealthy
        restarts = container.record.unhealthy_restarts
        if wish.action == "restart" and restarts >= wish.budget:
            if container.id not in self._spent:
                self._spent.add(container.id)
                log.warning(
                    "container %s is unhealthy after %d restarts in a row, and left so",
                    *(container.id, restarts),
                )
                self._lifecycle.emit(container, "on_unhealthy: budget spent")
            return
        delay_s = pause_s(restarts) if wish.action == "restart" else 0.0
        task = asyncio.get_running_loop().create_task(self._act(container, wish.action, delay_s))
        self._plans[container.id] = task

    async def _act(self, container: Container, action: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        # From here on it is no plan any more, and the container's end does not cancel it.
        task = asyncio.current_task()
        assert task is not None
        if self._plans.get(container.id) is task:
            del self._plans[container.id]
        self._acting[container.id] = task
        task.add_done_callback(lambda _: self._acting.pop(container.id, None))
        if not self._registry.holds(container) or container.state.status is not Status.RUNNING:
            return
        self._lifecycle.emit(container, f"on_unhealthy: {action}")
        try:
            if action == "stop":
                await self._lifecycle.stopping.stop(container, signal_name=None, timeout_s=None)
            else:
                container.record.unhealthy_restarts += 1
                await self._lifecycle.stopping.recycle(container)
        except NotModified:
            pass  # somebody was faster
        except SampanError as failure:
            log.error("container %s is unhealthy: %s: %s", container.id, action, failure.message)

    def _drop(self, container: Container) -> None:
        task = self._plans.pop(container.id, None)
        if task is not None:
            task.cancel()

    def _end_row(self, container: Container) -> None:
        record = container.record
        if record.unhealthy_restarts and time.time_ns() - record.state.started_ns > STEADY_NS:
            record.unhealthy_restarts = 0
            self._registry.save(container)
