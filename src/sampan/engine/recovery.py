"""What a new daemon does with what a former one left: containers that run, ended or half exist.

The database says what was asked for; which containers run is asked of their shims. Whatever
belongs to no container is removed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import time

from sampan.engine import health, held_still
from sampan.engine.container import Container, Event, Status
from sampan.engine.lifecycle import Lifecycle
from sampan.engine.services import Services
from sampan.errors import NotFound, SampanError
from sampan.linux.cgroups.manager import open_cgroup
from sampan.shim import exit_record
from sampan.shim.client import ExitStatus, ShimConnection, reconnect

log = logging.getLogger(__name__)

# dockerd's exit code of a container whose end nobody saw.
UNKNOWN_EXIT = 255
SOCKET_SUFFIX = ".sock"


async def recover(services: Services, lifecycle: Lifecycle) -> list[Container]:
    """Bring the engine's picture up to date; return the ended containers that --rm removes."""
    containers = {container.id: container for container in services.registry.load()}
    for container in containers.values():
        _tell_again(services, lifecycle, container)
    listening = _listening(services.options.shims_directory)
    await asyncio.gather(
        *(_find(services, lifecycle, containers[identity]) for identity in containers),
        *(_end_stray(services, identity) for identity in listening - containers.keys()),
    )
    services.events.forget_former()
    _sweep(services, set(containers))
    return [
        container
        for container in containers.values()
        if container.state.status in (Status.REMOVING, Status.DEAD)
        or (container.host_config.auto_remove and container.state.status is Status.EXITED)
    ]


def _tell_again(services: Services, lifecycle: Lifecycle, container: Container) -> None:
    """Tell that it was made, if the former daemon died between the row and that; whether it told of the
    removal is remembered, for a removal that comes again."""
    told = services.events.was_told
    fresh = container.state.status is Status.CREATED
    if fresh and not told(container.id, "create", container.created_ns):
        lifecycle.emit(container, "create")
    container.removal_told = told(container.id, "destroy")


async def _find(services: Services, lifecycle: Lifecycle, container: Container) -> None:
    """Reconnect with the container's shim, or note how the container ended."""
    try:
        shim = await reconnect(services.socket_path(container.id))
    except NotFound:
        _note_missing(services, lifecycle, container)
        return
    _adopt(services, lifecycle, container, shim)


def _adopt(
    services: Services, lifecycle: Lifecycle, container: Container, shim: ShimConnection
) -> None:
    state = container.state
    if not state.running:
        # The former daemon died between the start and the note of it.
        container.move(Event.STARTED)
        state.error, state.finished_ns = "", 0
        state.health = health.begun(container.config, state.health)
        if _last_told(services, container) != "start":
            lifecycle.emit(container, "start")
    state.pid, state.started_ns = shim.pid, shim.started_at_ns
    cgroup = open_cgroup(container.record.cgroup_path)
    if held_still.forget(container):
        cgroup.thaw()  # the former daemon had paused it, and would have let it go on
    frozen = cgroup.frozen()
    if frozen and state.status is Status.RUNNING:
        container.move(Event.PAUSED)
    elif not frozen and state.status is Status.PAUSED:
        container.move(Event.UNPAUSED)
    services.networking.adopt(container)
    lifecycle.watch(container, shim)
    services.registry.save(container)
    if state.status is Status.RUNNING:
        lifecycle.tell_running(container)


def _note_missing(services: Services, lifecycle: Lifecycle, container: Container) -> None:
    """No shim listens: it ended with its container, or died."""
    state = container.state
    status = exit_record.read(container.directory)
    if state.restarting:
        # A start may have been under way that had not come to listen yet: there must not be two.
        _kill_leftovers(container)
    if state.running:
        if status is None or not _of_noted_run(status, container):
            _kill_leftovers(container)
            status = ExitStatus(
                exit_code=UNKNOWN_EXIT,
                exited_at_ns=time.time_ns(),
                error="the container's shim died while no daemon was running",
            )
        lifecycle.note_end(container, status, told=_last_told(services, container) == "die")
    elif status is not None and not _of_noted_run(status, container):
        # It was started and ended before the former daemon could note either.
        state.started_ns = status.started_at_ns or status.exited_at_ns
        container.move(Event.STARTED)
        if _last_told(services, container) != "start":
            lifecycle.emit(container, "start")
        lifecycle.note_end(container, status)
    else:
        services.networking.disconnect(container)  # of a start that came to nothing


def _last_told(services: Services, container: Container) -> str:
    """Whether listeners heard last of its start or of its end; a daemon tells first and notes then."""
    return services.events.last_told(container.id)


def _of_noted_run(status: ExitStatus, container: Container) -> bool:
    """Whether this is the end of the run whose start is in the database.

    By the start's time, which is the run's name; by the clock, which may have been set, only for shims
    of a Sampan that did not write it.
    """
    state = container.state
    if status.started_at_ns:
        return status.started_at_ns == state.started_ns
    if state.running:
        return status.exited_at_ns >= state.started_ns
    return status.exited_at_ns <= max(state.finished_ns, state.started_ns)


def _kill_leftovers(container: Container) -> None:
    """End what a container without a shim left running, and its cgroup."""
    cgroup = open_cgroup(container.record.cgroup_path)
    try:
        cgroup.kill(signal.SIGKILL)
        cgroup.delete()
    except SampanError as error:
        log.error("container %s: its processes could not be ended: %s", container.id, error)


async def _end_stray(services: Services, identity: str) -> None:
    """Kill a container that the database does not know: its removal was under way."""
    path = f"{services.options.shims_directory}/{identity}{SOCKET_SUFFIX}"
    try:
        shim = await reconnect(path)
    except NotFound:
        _unlink(path)
        return
    log.warning("ending container %s, which is in no database", identity)
    await shim.signal(signal.SIGKILL)
    await shim.gone


def _sweep(services: Services, identities: set[str]) -> None:
    """Remove directories and snapshots of containers that do not exist."""
    directory = services.options.containers_directory
    for name in os.listdir(directory):
        if name not in identities:
            shutil.rmtree(f"{directory}/{name}", ignore_errors=True)
    for key in services.snapshots.keys():  # noqa: SIM118 (it is no mapping)
        if key not in identities:
            services.snapshots.remove(key)
    for identity in _listening(services.options.shims_directory) - identities:
        _unlink(f"{services.options.shims_directory}/{identity}{SOCKET_SUFFIX}")


def _listening(directory: str) -> set[str]:
    """The IDs of containers that have a shim's socket."""
    return {
        name.removesuffix(SOCKET_SUFFIX)
        for name in os.listdir(directory)
        if name.endswith(SOCKET_SUFFIX)
    }


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
