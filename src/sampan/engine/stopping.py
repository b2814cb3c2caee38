"""Ending a container's process: by its stop signal, by force, for good or to start again."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any

from sampan.engine import defaults, restarts
from sampan.engine.container import Status
from sampan.engine.post_mortem import sent
from sampan.engine.signals import DEFAULT_STOP_SIGNAL, signal_number
from sampan.errors import Conflict, NotModified, RuntimeFailure, Unavailable
from sampan.linux.signal_masks import is_lost_on

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.lifecycle import Lifecycle
    from sampan.engine.services import Services

log = logging.getLogger(__name__)

# A container with this label is given its whole time-out at `stop`, whether it listens or not.
STOP_LABEL, STOP_WAITS = "dev.sampan.stop", "wait"
# After SIGKILL a process ends, unless the kernel itself hangs on something (a dead NFS server).
KILL_TIMEOUT_S = 30.0


class Stopping:
    """Signals to containers, and the wait for their end; what follows an end is the lifecycle's."""

    def __init__(self, services: Services, lifecycle: Lifecycle) -> None:
        self._registry = services.registry
        self._lifecycle = lifecycle

    async def stop(
        self, container: Container, *, signal_name: str | None, timeout_s: int | None
    ) -> None:
        """Ask the process to end, and make it after the time-out (-1: never).

        A start that waits for others is given up.

        Raises:
            NotModified: it does not run.
        """
        if container.state.restarting:
            await self._lifecycle.drop_restart(container)
            if not container.state.running:
                self._lifecycle.emit(container, "stop")
                return
        if not container.state.running:
            stopped = Conflict(
                f"cannot start container {container.name}: it was stopped while it waited"
            )
            if self._lifecycle.order.give_up(container, stopped):
                return
            raise NotModified(f"container {container.id} is not running")
        number = signal_number(signal_name or container.config.stop_signal or DEFAULT_STOP_SIGNAL)
        if timeout_s is None:
            preset = container.config.stop_timeout
            timeout_s = defaults.STOP_TIMEOUT_S if preset is None else preset
        self._lifecycle.note_stopped(container)
        ended = container.wait("next-exit")
        try:
            if await self._signal_in_vain(container, number) and timeout_s > 0:
                timeout_s = 0
            if not await _within(ended, None if timeout_s < 0 else float(timeout_s)):
                log.info("container %s did not end in %s s", container.id, timeout_s)
                await self.force_end(container)
        finally:
            ended.cancel()
        self._lifecycle.emit(container, "stop")

    async def force_end(self, container: Container) -> None:
        """Kill the process and wait for its end; no restart policy brings it back.

        Raises:
            RuntimeFailure: the kernel does not end it.
        """
        if container.state.restarting:
            await self._lifecycle.drop_restart(container)
        if not container.state.running:
            return
        self._lifecycle.note_stopped(container)
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
                await self._lifecycle.drop_restart(container)
            if not container.state.running:  # else its start was under way
                return
        if not container.state.running:
            raise Conflict(f"Container {container.id} is not running")
        if number == signal.SIGKILL:
            await self.force_end(container)
        else:
            if by_hand:
                self._lifecycle.note_stopped(container)
            await self._signal(container, number)

    async def expire(self, container: Container) -> None:
        """End a container whose time is over: as by a stop, but for no longer than usual."""
        self._lifecycle.emit(container, "expire")
        _, limit_s = _usual_stop(container)
        longest_s = defaults.STOP_TIMEOUT_S
        timeout_s = longest_s if limit_s is None else min(int(limit_s), longest_s)
        try:
            await self.stop(container, signal_name=None, timeout_s=timeout_s)
        except NotModified:
            pass

    async def recycle(self, container: Container) -> None:
        """Stop a running container that then starts again, whatever its restart policy is.

        That it will is written down first: a daemon that dies on the way leaves it to the next one.

        Raises:
            RuntimeFailure: the kernel does not end it.
        """
        container.record.recycled = True
        self._registry.save(container)
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
        self._lifecycle.emit(container, "kill", signal=str(number))
        stop_signal = signal_number(container.config.stop_signal or DEFAULT_STOP_SIGNAL)
        if container.state.status is Status.PAUSED and number in (signal.SIGKILL, stop_signal):
            self._lifecycle.freezing.thaw(container)


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


async def _within(future: asyncio.Future[Any], timeout_s: float | None) -> bool:
    """Whether the future is done in time; it is left as it is."""
    done, _ = await asyncio.wait({future}, timeout=timeout_s)
    return bool(done)
