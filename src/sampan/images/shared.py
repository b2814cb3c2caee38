"""Work that several need and one does: a download, an unpacking.

Who comes second joins the first one's task and hears what it has to tell; when somebody leaves, the
task goes on for the rest, and it is cancelled with the last. What fails, fails for all who joined.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from sampan.images.progress import Progress


class Job(ABC):
    """A piece of work in a task of its own, with listeners to its messages. On the event loop."""

    def __init__(self) -> None:
        self.users = 0
        self._listeners: list[Progress] = []
        self._last: dict[str, Any] | None = None
        self._predecessor: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def run(self) -> None:
        """Do it; cancelled, leave nothing half done behind."""

    def tell(self, message: dict[str, Any]) -> None:
        """Pass a message on to all who listen; who joins later hears the last one."""
        self._last = message
        for listener in self._listeners:
            listener(message)

    async def wait(self) -> None:
        """Wait for the end of the work; being cancelled here does not end it.

        Raises:
            what the work failed with.
        """
        await asyncio.shield(self.task)

    @property
    def failed(self) -> bool:
        """Whether it has ended without doing what it was for."""
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)

    def begin(self, predecessor: asyncio.Task[None] | None) -> None:
        """Start, as soon as an earlier task for the same thing has ended."""
        self._predecessor = predecessor
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_retrieve)

    async def _run(self) -> None:
        if self._predecessor is not None:
            await asyncio.wait((self._predecessor,))
        await self.run()

    def listen(self, listener: Progress) -> None:
        self._listeners.append(listener)
        if self._last is not None:
            listener(self._last)

    def unlisten(self, listener: Progress) -> None:
        self._listeners.remove(listener)

    @property
    def task(self) -> asyncio.Task[None]:
        assert self._task is not None
        return self._task


AnyJob = TypeVar("AnyJob", bound=Job)


class Jobs(Generic[AnyJob]):
    """The jobs under way, by what they are about."""

    def __init__(self) -> None:
        self._jobs: dict[str, AnyJob] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def join(
        self, key: str, make: Callable[[], AnyJob], listener: Progress
    ) -> AsyncIterator[AnyJob]:
        """The job about `key`, begun now unless it is under way; left at the end of the `with`.

        A job that failed is not joined any more.
        """
        job = self._jobs.get(key)
        if job is None or job.failed:
            former = job.task if job is not None else self._ending.get(key)
            job = self._jobs[key] = make()
            job.begin(former)
        job.users += 1
        job.listen(listener)
        try:
            yield job
        finally:
            job.unlisten(listener)
            job.users -= 1
            if not job.users:
                await self._dismiss(key, job)

    async def _dismiss(self, key: str, job: AnyJob) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]
        task = job.task
        task.cancel()
        if task.done():
            return
        self._ending[key] = task
        task.add_done_callback(lambda ended: self._forget(key, ended))
        await ended(task)

    def _forget(self, key: str, task: asyncio.Task[None]) -> None:
        if self._ending.get(key) is task:
            del self._ending[key]


async def ended(future: asyncio.Future[Any]) -> None:
    """Wait for the end of what was told to end, however often we are cancelled meanwhile: its files
    and threads are not to be in use when we go on."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the outcome, which may interest nobody any more."""
    if not task.cancelled():
        task.exception()
