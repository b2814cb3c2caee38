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
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.registry import Registry
    from sampan.engine.terms import Dependency

log = logging.getLogger(__name__)

Find = Callable[[str], "Container"]


class _Wait:
    """A start that waits for its turn; `failure` ends it."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.changed = asyncio.Event()
        self.failure: SampanError | None = None
        self._told = ""

    def tell(self, reason: str) -> None:
        """Say what it waits for, once."""
        if reason == self._told:
            return
        self._told = reason
        log.info("container %s waits: %s", self.container.name, reason)
        if self.container.state.restarting:
            self.container.state.error = f"waiting: {reason}"

    def over(self) -> None:
        """Say so, if it waited."""
        if self._told:
            log.info("container %s waits no more", self.container.name)


class Order:
    """Who waits for whom; a `Watcher` of the lifecycle."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._waits: set[_Wait] = set()

    def running(self, container: Container) -> None:
        self.wake()

    def halted(self, container: Container) -> None:
        self.wake()

    def wake(self) -> None:
        """Something changed: whoever waits looks again."""
        for wait in self._waits:
            wait.changed.set()

    def give_up(self, container: Container, failure: SampanError) -> bool:
        """End the starts of a container that wait, with that failure; whether there were any."""
        waits = [wait for wait in self._waits if wait.container is container]
        for wait in waits:
            wait.failure = failure
            wait.changed.set()
        return bool(waits)

    async def reached(self, container: Container, *, patient: bool) -> None:
        """Wait until the container may start; at once for one that starts after nobody.

        Raises:
            Conflict: not when `patient`; nothing is under way that would let it start.
            SampanError: somebody gave the start up (`give_up`).
        """
        if not container.record.terms.after:
            return
        wait = _Wait(container)
        self._waits.add(wait)
        try:
            while (obstacle := first_obstacle(container, self._registry.find)) is not None:
                reason, passing = obstacle
                if not (patient or passing):
                    raise Conflict(f"cannot start container {container.name}: {reason}")
                wait.tell(reason)
                wait.changed.clear()
                await wait.changed.wait()
                if wait.failure is not None:
                    raise wait.failure
        finally:
            self._waits.discard(wait)
            wait.over()


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
