"""One container as the engine holds it: its record, its state table, its live connections."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from sampan.engine.boot_clock import Deadline
from sampan.engine.health import Health
from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig
from sampan.engine.terms import Terms
from sampan.errors import Conflict

if TYPE_CHECKING:
    from sampan.engine.post_mortem import SentSignal
    from sampan.shim.client import ShimConnection
    from sampan.shim.streams import ClientStream


class Status(StrEnum):
    """Docker's words for what a container is doing."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Event(StrEnum):
    """What can happen to a container."""

    STARTED = "started"
    START_FAILED = "start failed"
    PAUSED = "paused"
    UNPAUSED = "unpaused"
    ENDED = "ended"
    RESTART_DUE = "to be restarted"
    RESTART_DROPPED = "left as it is"
    REMOVAL = "removal"
    REMOVAL_FAILED = "removal failed"


# status → event → status. What is not here cannot happen.
LIFE: dict[Status, dict[Event, Status]] = {
    Status.CREATED: {
        Event.STARTED: Status.RUNNING,
        Event.START_FAILED: Status.CREATED,
        Event.ENDED: Status.EXITED,
        Event.REMOVAL: Status.REMOVING,
    },
    Status.RUNNING: {
        Event.PAUSED: Status.PAUSED,
        Event.ENDED: Status.EXITED,
        Event.RESTART_DUE: Status.RESTARTING,
    },
    Status.PAUSED: {
        Event.UNPAUSED: Status.RUNNING,
        Event.ENDED: Status.EXITED,
        Event.RESTART_DUE: Status.RESTARTING,
    },
    Status.RESTARTING: {
        Event.STARTED: Status.RUNNING,
        Event.START_FAILED: Status.EXITED,
        Event.RESTART_DUE: Status.RESTARTING,
        Event.RESTART_DROPPED: Status.EXITED,
    },
    Status.EXITED: {
        Event.STARTED: Status.RUNNING,
        Event.START_FAILED: Status.EXITED,
        Event.RESTART_DUE: Status.RESTARTING,
        Event.REMOVAL: Status.REMOVING,
    },
    Status.REMOVING: {Event.REMOVAL_FAILED: Status.DEAD, Event.REMOVAL: Status.REMOVING},
    Status.DEAD: {Event.REMOVAL: Status.REMOVING},
}


class State(msgspec.Struct, kw_only=True):
    """What is known of the container's process; times in ns since the epoch, 0 for never."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    oom_killed: bool = False
    health: Health | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process: running or paused."""
        return self.status in (Status.RUNNING, Status.PAUSED)

    @property
    def restarting(self) -> bool:
        """Whether it has ended and its restart policy starts it again soon."""
        return self.status is Status.RESTARTING

    @property
    def counts_as_running(self) -> bool:
        """Docker's `Running`: there is a process, or there will be one again."""
        return self.running or self.restarting


class Endpoint(msgspec.Struct, kw_only=True):
    """A container's place in a network; empty texts while it has none.

    `interface` is its name in the container, `host_port` on the host. What the user wishes for it is
    in `Record.networking`.
    """

    network: str
    network_id: str = ""
    endpoint_id: str = ""
    address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    mac_address: str = ""
    ipv6_address: str = ""
    ipv6_prefix_length: int = 0
    ipv6_gateway: str = ""
    interface: str = ""
    host_port: str = ""


class BoundPort(msgspec.Struct, kw_only=True, frozen=True):
    """A published port of a running container; `host_address` is `0.0.0.0` or `::` for all."""

    protocol: str
    port: int
    host_address: str
    host_port: int


class BoundMount(msgspec.Struct, kw_only=True):
    """A mount the user asked for, as inspect shows it.

    One that is read-only is so with all that is mounted below it, unless `writable_below`.
    A volume has a `name` (none until it is made) and perhaps a directory in it that is meant
    (`subpath`); with `no_copy` it does not get what the image has there. Of an image, `source` is what
    the user called it, `image` its ID and `layers` the snapshot that it is.
    """

    type: str
    source: str
    destination: str
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    name: str = ""
    subpath: str = ""
    no_copy: bool = False
    writable_below: bool = False
    image: str = ""
    layers: str = ""


class Record(msgspec.Struct, kw_only=True):
    """What is written to the database about a container, as JSON.

    `deadline` is when its `terms` end it. `unhealthy_restarts` counts restarts in a row because it was
    unhealthy; `recycled`: it is being stopped for one, and starts again whatever its restart policy is.
    `replugging`: its interfaces are being changed while it runs.
    A field that is added gets a default, so that rows of older versions still load.
    """

    id: str
    name: str
    created_ns: int
    config: ContainerConfig
    host_config: HostConfig
    networking: NetworkingConfig
    image_id: str
    image_reference: str
    path: str
    args: list[str]
    state: State = msgspec.field(default_factory=State)
    endpoints: dict[str, Endpoint] = {}
    mounts: list[BoundMount] = []
    ports: list[BoundPort] = []
    hostname: str = ""
    cgroup_path: str = ""
    capabilities: list[str] = []
    apparmor_profile: str = ""  # of the last start, empty for none
    restart_count: int = 0
    manually_stopped: bool = False
    terms: Terms = Terms()
    deadline: Deadline | None = None
    unhealthy_restarts: int = 0
    recycled: bool = False
    replugging: bool = False


class WaitResult(msgspec.Struct, kw_only=True):
    """The answer of a wait: the exit code, and why there is none that means something."""

    exit_code: int
    error: str = ""


class Container:
    """A container: its record and what lives only while the daemon does.

    `lock` is held by whoever starts, pauses, renames or removes it; its end is noted without it,
    since an end asks nobody. `ended` is set while no process runs; by then the log is complete.
    `restarting` is set during the restart that a client asked for; `restart_delay_s` is the last pause
    of its restart policy, `last_signal` what was sent to this run. `removal_told`: listeners heard that it is gone,
    which it is about to be.
    """

    def __init__(self, record: Record, directory: str) -> None:
        self.record = record
        self.directory = directory
        self.lock = asyncio.Lock()
        self.shim: ShimConnection | None = None
        self.last_shim: ShimConnection | None = None
        self.restarting = False
        self.restart_delay_s = 0.0
        self.last_signal: SentSignal | None = None
        self.removal_told = False
        self.ended = asyncio.Event()
        if not record.state.running:
            self.ended.set()
        self.parked: list[ClientStream] = []
        self.exec_ids: dict[str, None] = {}
        self._waiters: list[tuple[str, asyncio.Future[WaitResult]]] = []

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        """Without Docker's leading slash."""
        return self.record.name

    @property
    def created_ns(self) -> int:
        return self.record.created_ns

    @property
    def config(self) -> ContainerConfig:
        return self.record.config

    @property
    def host_config(self) -> HostConfig:
        return self.record.host_config

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def image(self) -> tuple[str, str]:
        """Image ID and the reference it was created by."""
        return self.record.image_id, self.record.image_reference

    @property
    def log_path(self) -> str:
        return f"{self.directory}/{self.id}-json.log"

    @property
    def log_driver(self) -> str:
        return self.host_config.log_config.type or "json-file"

    @property
    def exit_path(self) -> str:
        """The shim's record of the end."""
        return f"{self.directory}/exit.json"

    def move(self, event: Event) -> Status:
        """Follow an event to the next status.

        Raises:
            Conflict: the event cannot happen in this status.
        """
        following = LIFE[self.state.status].get(event)
        if following is None:
            raise Conflict(
                f"container {self.id} is {self.state.status.value}, so it cannot be {event.value}"
            )
        self.state.status = following
        if self.state.running:
            self.ended.clear()
        else:
            self.ended.set()
        return following

    def wait(self, condition: str) -> asyncio.Future[WaitResult]:
        """A future for `not-running`, `next-exit` or `removed`; registered at once.

        Cancelling it leaves nothing behind.
        """
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and not self.state.counts_as_running:
            future.set_result(self.result())
            return future
        entry = (condition, future)
        self._waiters.append(entry)
        future.add_done_callback(lambda _: self._forget(entry))
        return future

    def result(self) -> WaitResult:
        return WaitResult(exit_code=self.state.exit_code, error=self.state.error)

    def resolve(self, *conditions: str) -> None:
        """Answer everybody who waits for one of `conditions`."""
        self._answer(conditions, self.result())

    def fail_waiters(self) -> None:
        """The container is gone: answer all who wait, those for the removal without an error."""
        self._answer(("not-running", "next-exit"), self.result())
        self._answer(("removed",), WaitResult(exit_code=self.state.exit_code))

    def _answer(self, conditions: tuple[str, ...], result: WaitResult) -> None:
        for condition, future in list(self._waiters):
            if condition in conditions and not future.done():
                future.set_result(result)

    def close_parked(self) -> None:
        """Hang up on clients that were waiting for a start that will not come."""
        for stream in self.parked:
            stream.close()
        self.parked.clear()

    def _forget(self, entry: tuple[str, asyncio.Future[WaitResult]]) -> None:
        if entry in self._waiters:
            self._waiters.remove(entry)
