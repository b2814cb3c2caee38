"""What is kept of a container's end when the container is gone: how, why, by whom, and its last words.

A record is in the database before anybody hears of the end; who the kernel killed for want of memory is
looked up in its log right after, and added.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.engine import requester
from sampan.engine.requester import Requester
from sampan.errors import InvalidArgument, NotFound
from sampan.linux import kernel_log
from sampan.linux.kernel_log import OutOfMemory
from sampan.logs.last_lines import Line, last_lines

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.registry import Registry
    from sampan.shim.client import ExitStatus
    from sampan.state.events import Limits
    from sampan.state.post_mortems import PostMortems

log = logging.getLogger(__name__)

OUTPUT_BYTES = 4096
"""Of the last lines of output."""
WORDS_BYTES = 1024
"""Of the command, of an error."""


class SentSignal(msgspec.Struct, frozen=True):
    """A signal that the engine sent to a container's first process, and who asked for it."""

    number: int
    by: Requester | None = None


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One run of a container. `started_ns` is 0 for one that could not be started.

    `usage` is the shim's, see `ExitStatus`; `memory_limit_bytes` 0 means none. A field that is added
    gets a default, so that rows of older versions still load.
    """

    id: str
    name: str
    image: str
    image_id: str
    command: str
    started_ns: int
    finished_ns: int
    exit_code: int
    signal: int = 0
    oom_killed: bool = False
    error: str = ""
    restart_count: int = 0
    memory_limit_bytes: int = 0
    usage: dict[str, int] = {}
    sent: SentSignal | None = None
    killed: list[OutOfMemory] = []
    output: list[Line] = []


_decode = msgspec.json.Decoder(Record).decode


class History:
    """Writes the records, and finds them again."""

    def __init__(self, rows: PostMortems, registry: Registry, *, lines: int) -> None:
        self.lines = lines
        self._rows = rows
        self._registry = registry
        self._looking: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until what is looked up is written."""
        await asyncio.gather(*self._looking)

    def ended(self, container: Container, status: ExitStatus) -> None:
        """Note the end of a run, before it is told. Never fails: what cannot be written is logged."""
        record = Record(
            **_who(container),
            started_ns=container.state.started_ns,
            finished_ns=status.exited_at_ns,
            exit_code=status.exit_code,
            signal=status.signal,
            oom_killed=status.oom_killed,
            error=_short(status.error),
            usage=status.usage,
            sent=container.last_signal,
            output=self._output(container),
        )
        self._write(record)
        if status.oom_killed:
            self._look_up(record)

    def not_started(self, container: Container) -> None:
        """Note a start that failed; `container.state` has its exit code and error."""
        record = Record(
            **_who(container),
            started_ns=0,
            finished_ns=time.time_ns(),
            exit_code=container.state.exit_code,
            error=_short(container.state.error),
        )
        self._write(record)

    async def of(self, reference: str, *, limit: int = -1) -> list[Record]:
        """The records of a container by name or ID, and of those that had the name before it; the
        last end first.

        Raises:
            NotFound: there is no such container, and no record of one.
            InvalidArgument: several IDs begin so.
        """
        await asyncio.gather(*self._looking)
        name = reference.removeprefix("/")
        try:
            rows = self._rows.of(name, self._registry.find(reference).id, limit=limit)
        except NotFound:
            rows = self._rows.of(name, limit=limit) or self._of_gone(name, limit)
            if not rows:
                raise
        return [_decode(row) for row in rows]

    def _of_gone(self, prefix: str, limit: int) -> list[bytes]:
        """The records of the one container whose ID begins so."""
        identities = self._rows.beginning(prefix) if prefix else []
        if len(identities) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {prefix}")
        return self._rows.of("", identities[0], limit=limit) if identities else []

    def tidy(self) -> None:
        """Drop what is too old or too much."""
        self._rows.prune()

    def set_limits(self, limits: Limits, lines: int) -> None:
        """Keep so much from the next `tidy` on, with so many last lines of output each."""
        self.lines = lines
        self._rows.limits = limits

    def _write(self, record: Record) -> None:
        try:
            self._rows.put(record.id, record.name, record.finished_ns, msgspec.json.encode(record))
        except sqlite3.Error as error:
            log.error("container %s: how it ended cannot be kept: %s", record.id, error)

    def _output(self, container: Container) -> list[Line]:
        if container.log_driver != "json-file":
            return []
        try:
            return list(last_lines(container.log_path, self.lines, OUTPUT_BYTES))
        except OSError as error:
            log.warning("container %s: its last output cannot be read: %s", container.id, error)
            return []

    def _look_up(self, record: Record) -> None:
        """Find whom the kernel killed; reading its log takes milliseconds, so in a thread."""

        async def look() -> None:
            text = await asyncio.to_thread(kernel_log.read_tail)
            killed = [kill for kill in kernel_log.out_of_memory(text) if record.id in kill.cgroup]
            if killed:
                record.killed = killed
                self._write(record)

        task = asyncio.get_running_loop().create_task(look())
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)


def sent(number: int) -> SentSignal:
    """A signal that is sent now, for who asks now."""
    return SentSignal(number, requester.current.get())


def _who(container: Container) -> dict[str, Any]:
    return {
        "id": container.id,
        "name": container.name,
        "image": container.image[1],
        "image_id": container.image[0],
        "command": _short(" ".join((container.record.path, *container.record.args))),
        "restart_count": container.record.restart_count,
        "memory_limit_bytes": container.host_config.memory,
    }


def _short(text: str) -> str:
    return text if len(text) <= WORDS_BYTES else text[:WORDS_BYTES] + "…"


def cause(record: Record) -> str:
    """Why the run ended, in a few words for people."""
    if not record.started_ns:
        return f"did not start: {record.error}"
    if record.error:
        return record.error
    name = _signal_name(record.signal)
    if record.oom_killed:
        kill = record.killed[-1] if record.killed else None
        whom = (
            f"the kernel killed {kill.process} (pid {kill.pid})"
            if kill
            else "the kernel killed a process"
        )
        what = f"out of memory: {whom}{_limit(record, kill)}"
        return what if record.signal else f"exited with code {record.exit_code}; {what}"
    if record.signal:
        by = record.sent
        if by is not None and by.number == record.signal:
            return f"killed by {name}, sent by {_sender(by.by)}"
        return f"killed by {name}"
    ending = f"exited with code {record.exit_code}"
    if record.sent is not None:
        ending += f" after {_signal_name(record.sent.number)}, sent by {_sender(record.sent.by)}"
    return ending


def _limit(record: Record, kill: OutOfMemory | None) -> str:
    if kill is None:
        size = record.memory_limit_bytes
        return f"; the container's limit was {size >> 20} MiB" if size else ""
    if not kill.limited:
        return "; the machine had no memory left"
    if record.id in kill.limited:
        return f"; the container's limit is {kill.limit_bytes >> 20} MiB"
    return f"; the limit of the cgroup {kill.limited} is {kill.limit_bytes >> 20} MiB"


def _sender(by: Requester | None) -> str:
    if by is None:
        return "the engine"
    if by.uid is None:
        return by.certificate or by.address
    return f"uid {by.uid}, pid {by.pid}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
