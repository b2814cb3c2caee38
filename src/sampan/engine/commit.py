"""`commit`: a container's changes become an image; and reading a container's tree.

The container is paused meanwhile unless the client says otherwise, so that the layer is of one moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from sampan.engine import held_still
from sampan.engine.container import Container, Status
from sampan.engine.lifecycle import Lifecycle
from sampan.engine.model import ContainerConfig, HealthConfig
from sampan.engine.services import Services
from sampan.engine.validation import as_list, merge_environment
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.images.image import Image
from sampan.images.making.changes import apply_changes
from sampan.images.making.commit import Commit
from sampan.images.pipe import produced
from sampan.images.service import Images
from sampan.oci.go_time import format_time
from sampan.oci.image_config import Healthcheck, RunDefaults
from sampan.snapshots.diff import Change


class CommitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `commit` is asked for; `config` stands before the container's own where it says something,
    `changes` are Dockerfile instructions."""

    reference: str = ""
    author: str = ""
    message: str = ""
    changes: Sequence[str] = ()
    pause: bool = True
    config: ContainerConfig | None = None


class Trees:
    """The containers' trees: what changed in them, all of them, and images made of them."""

    def __init__(self, services: Services, images: Images, lifecycle: Lifecycle) -> None:
        self._services = services
        self._images = images
        self._lifecycle = lifecycle

    async def changes(self, container: Container) -> list[Change]:
        """What the container changed; see `snapshots.diff.changes`."""
        return await asyncio.to_thread(self._services.snapshots.changes, container.id)

    async def export(self, container: Container) -> AsyncIterator[bytes]:
        """The tar of all that the container sees, without what is mounted in it.

        Raises:
            Conflict: it is being removed, or was before the end.
        """
        _check_status(container, "export")
        async for piece in produced(self._services.snapshots.tree_tar(container.id)):
            yield piece
        self._check_still_there(container)
        self._lifecycle.emit(container, "export")

    async def commit(self, container: Container, request: CommitRequest) -> Image:
        """Make an image of the container's changes.

        Raises:
            Conflict: it is being removed.
            InvalidArgument: the reference or a change is bad, or it is of the host image.
            NotFound: the image that it was made from is gone.
        """
        _check_status(container, "commit")
        reference = self._images.target(request.reference) if request.reference else None
        parent = self._parent(container)
        commit = Commit(
            config=merged_defaults(container.config, request.config, request.changes),
            author=request.author,
            message=request.message,
            created=format_time(time.time_ns()),
            created_by=" ".join(as_list(container.config.cmd)),
            reference=reference,
        )
        async with self._paused(container, request.pause):
            pieces = self._services.snapshots.layer_tar(container.id)
            image = await self._images.commit(self._watched(container, pieces), parent, commit)
            self._lifecycle.emit(
                container,
                "commit",
                comment=request.message,
                imageID=image.id,
                imageRef=reference.familiar if reference else "",
            )
        return image

    def _parent(self, container: Container) -> Image:
        identity, _ = container.image
        if identity == self._images.host.id:
            raise InvalidArgument(
                "a container of the host image cannot be committed: it has no layers below it",
                hint="`export` writes its whole tree as a tar, which `import` takes",
            )
        try:
            return self._images.resolve(identity)
        except NotFound as error:
            error.hint = (
                f"the image of container {container.name} was removed; `export` and `import` keep "
                "its files"
            )
            raise

    def _watched(self, container: Container, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces, unless the container was removed before the last one: then they are not all."""
        for piece in pieces:
            self._check_still_there(container)
            yield piece

    def _check_still_there(self, container: Container) -> None:
        gone = not self._services.registry.holds(container)
        if gone or container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"container {container.id} was removed meanwhile")

    @asynccontextmanager
    async def _paused(self, container: Container, wanted: bool) -> AsyncIterator[None]:
        """Keep a running container paused; one that somebody else paused stays so."""
        paused = False
        try:
            if wanted and container.state.status is Status.RUNNING:
                held_still.note(container)
                try:
                    await self._lifecycle.freezing.pause(container)
                    paused = True
                except Conflict:  # it has just ended, or was paused
                    if not _is_paused(container):
                        held_still.forget(container)
            yield
        finally:
            if paused:
                if _is_paused(container):
                    await self._lifecycle.freezing.unpause(container)
                held_still.forget(container)


def _is_paused(container: Container) -> bool:
    return container.state.status is Status.PAUSED


def _check_status(container: Container, verb: str) -> None:
    if container.state.status is Status.DEAD:
        raise Conflict(f"You cannot {verb} container {container.id} which is Dead")
    if container.state.status is Status.REMOVING:
        raise Conflict(f"You cannot {verb} container {container.id} which is being removed")


def merged_defaults(
    own: ContainerConfig, wanted: ContainerConfig | None, changes: Sequence[str]
) -> RunDefaults:
    """The new image's run defaults: `wanted` with the changes, completed from the container's own.

    Docker's rules: maps are merged, variables by name; an entrypoint drops the container's command.

    Raises:
        InvalidArgument: a change is bad.
    """
    preset = run_defaults(own)
    config = run_defaults(wanted or own)
    apply_changes(config, changes)
    if not config.entrypoint:
        if not config.cmd:
            config.cmd = preset.cmd
            config.args_escaped = preset.args_escaped
        if config.entrypoint is None:
            config.entrypoint = preset.entrypoint
    config.cmd = config.cmd or None
    config.env = merge_environment(config.env or [], preset.env or []) or None
    config.labels = {**(preset.labels or {}), **(config.labels or {})} or None
    config.exposed_ports = {
        **(preset.exposed_ports or {}),
        **(config.exposed_ports or {}),
    } or None
    config.volumes = {**(config.volumes or {}), **(preset.volumes or {})} or None
    config.user = config.user or preset.user
    config.working_dir = config.working_dir or preset.working_dir
    config.stop_signal = config.stop_signal or preset.stop_signal
    config.healthcheck = config.healthcheck or preset.healthcheck
    config.on_build = config.on_build or preset.on_build
    config.shell = config.shell or preset.shell
    return config


def run_defaults(config: ContainerConfig) -> RunDefaults:
    """What of a container's configuration an image can preset."""
    return RunDefaults(
        user=config.user,
        exposed_ports=dict(config.exposed_ports) if config.exposed_ports else None,
        env=list(config.env) or None,
        cmd=None if config.cmd is None else as_list(config.cmd),
        entrypoint=None if config.entrypoint is None else as_list(config.entrypoint),
        volumes=dict(config.volumes) if config.volumes else None,
        working_dir=config.working_dir,
        labels=dict(config.labels) or None,
        stop_signal=config.stop_signal,
        healthcheck=_healthcheck(config.healthcheck),
        on_build=list(config.on_build) if config.on_build else None,
        shell=list(config.shell) if config.shell else None,
        args_escaped=config.args_escaped,
    )


def _healthcheck(config: HealthConfig | None) -> Healthcheck | None:
    if config is None:
        return None
    return Healthcheck(
        test=list(config.test) or None,
        interval=config.interval,
        timeout=config.timeout,
        start_period=config.start_period,
        start_interval=config.start_interval,
        retries=config.retries,
    )
