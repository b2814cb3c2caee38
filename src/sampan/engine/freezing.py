"""Pausing a container: its cgroup frozen, and thawed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sampan.engine import health
from sampan.engine.container import Event, Status
from sampan.engine.restarts import restarting_text
from sampan.errors import Conflict
from sampan.linux.cgroups.manager import open_cgroup

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.lifecycle import Lifecycle
    from sampan.engine.services import Services


class Freezing:
    """Stops all processes of a container where they are, and lets them go on."""

    def __init__(self, services: Services, lifecycle: Lifecycle) -> None:
        self._registry = services.registry
        self._lifecycle = lifecycle

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
                self._lifecycle.tell_halted(container)
                self._registry.save(container)
                self._lifecycle.emit(container, "pause")

    async def unpause(self, container: Container) -> None:
        """Let a paused container go on.

        Raises:
            Conflict: it is not paused.
        """
        async with container.lock:
            if container.state.status is not Status.PAUSED:
                raise Conflict(f"Container {container.id} is not paused")
            self.thaw(container)
            self._lifecycle.emit(container, "unpause")

    def thaw(self, container: Container) -> None:
        """Let it go on without an event: for the signal that ends it."""
        open_cgroup(container.record.cgroup_path).thaw()
        if container.state.status is Status.PAUSED:
            container.move(Event.UNPAUSED)
            self._registry.save(container)
            self._lifecycle.tell_running(container)
