"""Restart policies: whether an ended container starts again, and when.

The rules are pure functions; `Restarts` holds the timers. That a container is to start again is written
with its end (status `restarting`, `restart_count`), in one row: a daemon that is killed at any moment
has either not noted the end, and finds it in exit.json, or left a container that the next one restarts.
Source: docs.docker.com "Start containers automatically", and dockerd 20.10 asked.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from sampan.engine.container import Status
from sampan.engine.model import HostConfig, RestartPolicy
from sampan.errors import InvalidArgument, SampanError

if TYPE_CHECKING:
    from sampan.engine.container import Container, Record

log = logging.getLogger(__name__)

POLICIES = frozenset({"", "no", "always", "on-failure", "unless-stopped"})

# After an end: so long at first, twice as long after each further one, as long again at first when
# the container had run so long meanwhile.
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
STEADY_RUN_S = 10.0

# Many that are due at once, as at boot, start so many at a time.
STARTS_AT_ONCE = 4
LONGEST_START_S = 10.0  # that the end of the engine waits for

# Signals that programs take as a message (read your files again); all others stop a container by hand.
MESSAGES = frozenset(
    {
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGCONT,
        signal.SIGURG,
        signal.SIGCHLD,
    }
)


def check_policy(host: HostConfig) -> None:
    """Refuse a restart policy that is none, with dockerd's texts.

    Raises:
        InvalidArgument: an unknown name, a count that does not go with it, or --rm beside it.
    """
    policy = host.restart_policy
    if policy.name not in POLICIES:
        raise InvalidArgument(f"invalid restart policy '{policy.name}'")
    if policy.name in ("always", "unless-stopped", "no") and policy.maximum_retry_count:
        raise InvalidArgument(
            f"maximum retry count cannot be used with restart policy '{policy.name}'"
        )
    if policy.name == "on-failure" and policy.maximum_retry_count < 0:
        raise InvalidArgument("maximum retry count cannot be negative")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def wants_restart(
    policy: RestartPolicy, *, exit_code: int, restart_count: int, manually_stopped: bool
) -> bool:
    """Whether a container that has just ended is to start again."""
    if manually_stopped:
        return False
    match policy.name:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            limit = policy.maximum_retry_count
            return exit_code != 0 and (limit == 0 or restart_count < limit)
        case _:
            return False


def starts_with_engine(record: Record) -> bool:
    """Whether a container that ended earlier is to start when the engine opens.

    `always` also then when it was stopped by hand, which is what tells it from `unless-stopped`.
    """
    policy = record.host_config.restart_policy.name
    return policy == "always" or (policy == "unless-stopped" and not record.manually_stopped)


def following_delay_s(delay_s: float, ran_s: float) -> float:
    """The pause before the next restart, `delay_s` having been the last one (0: none yet)."""
    if delay_s <= 0 or ran_s >= STEADY_RUN_S:
        return FIRST_DELAY_S
    return min(delay_s * 2, LONGEST_DELAY_S)


def stops_by_hand(number: int) -> bool:
    """Whether who sends this signal wants the container to end, and not to come back."""
    return number not in MESSAGES


def restarting_text(container: Container) -> str:
    """dockerd's refusal of what needs a process."""
    return f"Container {container.id} is restarting, wait until the container is running"


class Restarts:
    """Containers that wait for their restart. `start` does it, and deals with its failure; `turn` waits
    for those that have to run before.

    None starts before `open`: until the engine has found all that run, addresses that they have look free.
    """

    def __init__(
        self,
        start: Callable[[Container], Awaitable[None]],
        turn: Callable[[Container], Awaitable[None]] | None = None,
    ) -> None:
        self._start = start
        self._turn = turn
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(STARTS_AT_ONCE)
        self._opened = asyncio.Event()
        self._closed = False

    def open(self) -> None:
        """Let restarts begin."""
        self._opened.set()

    def schedule(self, container: Container, delay_s: float) -> None:
        """Start the container after a pause; it replaces an earlier plan."""
        self.cancel(container)
        if self._closed:
            return
        task = asyncio.get_running_loop().create_task(self._restart(container, delay_s))
        self._waiting[container.id] = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget(container, done))

    def cancel(self, container: Container) -> None:
        """Drop the plan for a container; a start that is under way goes on."""
        task = self._waiting.pop(container.id, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Drop all plans, which the next engine takes up from the database; let starts finish."""
        self._closed = True
        for task in self._waiting.values():
            task.cancel()
        self._waiting.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LONGEST_START_S)

    async def _restart(self, container: Container, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._opened.wait()
        if self._turn is not None:
            await self._turn(container)
        async with self._places:
            # From here on it is no plan any more: what cancels plans waits for the start instead.
            if self._waiting.get(container.id) is asyncio.current_task():
                del self._waiting[container.id]
            try:
                await self._start(container)
            except SampanError as failure:
                log.info("container %s: its restart failed: %s", container.id, failure.message)

    def _forget(self, container: Container, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting.get(container.id) is task:
            del self._waiting[container.id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("container %s: its restart failed: %r", container.id, error)


def due(containers: Iterable[Container]) -> list[Container]:
    """Which are to start when the engine opens, oldest first; one that never ran is left alone."""
    wanted = [
        container
        for container in containers
        if container.state.restarting
        or (container.state.status is Status.EXITED and starts_with_engine(container.record))
    ]
    return sorted(wanted, key=lambda container: container.created_ns)
