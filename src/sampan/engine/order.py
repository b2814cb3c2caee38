"""Start order: `--after db:healthy` holds a container's start back until others are there.

A client's start fails at once when waiting is in vain (the other is not there, does not run, is unhealthy)
and waits while the other is on its way. A restart by policy, also when the engine opens, is patient: it waits
until the other comes, whoever starts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from sampan.engine.container import Status
from sampan.engine.health import HealthStatus
from sampan.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.registry import Registry
    from sampan.engine.terms import Dependency

log = logging.getLogger(__name__)

Find = Callable[[str], "Container"]


class Order:
    """Who waits for whom; a `Watcher` of the lifecycle."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._changed: asyncio.Future[None] | None = None

    def running(self, container: Container) -> None:
        self.wake()

    def halted(self, container: Container) -> None:
        self.wake()

    def wake(self) -> None:
        """Something changed: whoever waits looks again."""
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)

    async def reached(self, container: Container, *, patient: bool) -> None:
        """Wait until the container may start; at once for one that starts after nobody.

        Raises:
            Conflict: not when `patient`; nothing is under way that would let it start.
        """
        if not container.record.terms.after:
            return
        waiting = ""
        while (obstacle := first_obstacle(container, self._registry.find)) is not None:
            reason, passing = obstacle
            if not (patient or passing):
                raise Conflict(f"cannot start container {container.name}: {reason}")
            if reason != waiting:
                waiting = reason
                log.info("container %s waits: %s", container.name, reason)
                if container.state.restarting:
                    container.state.error = f"waiting: {reason}"
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)


def first_obstacle(container: Container, find: Find) -> tuple[str, bool] | None:
    """What is in the way of the container's start, and whether it is about to pass; None for nothing."""
    if (circle := circle_of(container, find)) is not None:
        names = " after ".join(each.name for each in circle)
        return f"containers start after each other: {names}", False
    for dependency in container.record.terms.after:
        if (found := obstacle(dependency, find)) is not None:
            return found
    return None


def obstacle(dependency: Dependency, find: Find) -> tuple[str, bool] | None:
    """What is in the way of who starts after `dependency`, and whether it is about to pass."""
    name = dependency.name
    lead = f"it starts after {name}, which"
    try:
        other = find(name)
    except (InvalidArgument, NotFound):
        return f"{lead} does not exist", False
    state = other.state
    if state.restarting or (not state.running and other.lock.locked()):
        return f"{lead} is starting", True
    if state.status is not Status.RUNNING:
        return f"{lead} is {state.status.value}", False
    if not dependency.healthy:
        return None
    if state.health is None:
        return f"{lead} has no health check and so never is healthy", False
    match state.health.status:
        case HealthStatus.HEALTHY:
            return None
        case HealthStatus.STARTING:
            return f"{lead} is not healthy yet", True
        case HealthStatus.UNHEALTHY:
            return f"{lead} is unhealthy", False


def circle_of(container: Container, find: Find) -> list[Container] | None:
    """Containers that start after each other, from one to the same again; None if there are none."""
    path: list[Container] = []
    seen: set[str] = set()

    def follow(current: Container) -> list[Container] | None:
        if current in path:
            return [*path[path.index(current) :], current]
        if current.id in seen:
            return None
        seen.add(current.id)
        path.append(current)
        for dependency in current.record.terms.after:
            try:
                circle = follow(find(dependency.name))
            except (InvalidArgument, NotFound):
                continue
            if circle is not None:
                return circle
        path.pop()
        return None

    return follow(container)
