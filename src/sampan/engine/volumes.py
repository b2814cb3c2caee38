"""Volumes: directories that outlive containers, by name.

    <data-root>/volumes/<name>/_data       what is mounted into containers
    <data-root>/volumes/<name>/.copying    content of an image on its way into the volume
    <data-root>/volumes/.<token>           being deleted

A directory is made before its row and goes after it; so one without a row is a leftover of a crash, and
deleted when the volumes are opened. Who uses a volume is read off the containers.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sampan.engine import local_driver
from sampan.engine.container import BoundMount, Container
from sampan.engine.events import EventBus
from sampan.engine.filters import Filters, check_names, labels_chosen, labels_match
from sampan.engine.mounts import check_volume_name, invalid_volume_name
from sampan.engine.registry import Registry
from sampan.engine.volume_directories import STAGED, bind_below, fill, unbind
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.oci.go_bool import parse_bool
from sampan.oci.go_time import format_time
from sampan.snapshots.overlay import tree_size
from sampan.snapshots.trees import remove_tree
from sampan.state.volumes import VolumeRecord, VolumeRow, VolumeRows

DRIVER = "local"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
FILTERS = frozenset(("dangling", "driver", "label", "name"))
PRUNE_FILTERS = frozenset(("all", "label", "label!"))

_NAME_LENGTH_MAX = 255


class Volume:
    """A volume; `path` is the directory that containers get."""

    __slots__ = ("created_ns", "lock", "name", "path", "record")

    def __init__(self, row: VolumeRow, directory: str) -> None:
        self.name = row.name
        self.created_ns = row.created_ns
        self.record = row.record
        self.path = f"{directory}/{row.name}/_data"
        self.lock = asyncio.Lock()

    def document(self) -> dict[str, Any]:
        """Docker's `Volume`."""
        record = self.record
        return {
            "CreatedAt": format_time(self.created_ns // 1_000_000_000 * 1_000_000_000),
            "Driver": record.driver,
            "Labels": record.labels or None,
            "Mountpoint": self.path,
            "Name": self.name,
            "Options": record.options or None,
            "Scope": "local",
        }


class Volumes:
    """The volumes of one engine."""

    def __init__(
        self,
        rows: VolumeRows,
        registry: Registry,
        events: EventBus,
        *,
        directory: str,
        places: str,
    ) -> None:
        """`directory` is theirs below the data root; below `places` parts of them are mounted for the
        moment of a start."""
        self._rows = rows
        self._directory = directory
        self.places = places
        self._registry = registry
        self._events = events
        self._volumes: dict[str, Volume] = {}
        self._deleting: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Read the rows."""
        os.makedirs(self._directory, mode=0o701, exist_ok=True)
        for row in self._rows.all():
            volume = self._volumes[row.name] = Volume(row, self._directory)
            os.makedirs(volume.path, mode=0o755, exist_ok=True)

    def tidy(self) -> None:
        """Unmount what no running container uses, and delete what a crash left half done.

        For the start of the engine, when it is known which containers run.
        """
        for volume in self._volumes.values():
            remove_tree(f"{os.path.dirname(volume.path)}/{STAGED}")
            self._unmount_unused(volume)
        for name in os.listdir(self.places) if os.path.isdir(self.places) else ():
            unbind(f"{self.places}/{name}")
        for name in os.listdir(self._directory):
            if name not in self._volumes:
                local_driver.unmount(f"{self._directory}/{name}/_data")
                remove_tree(f"{self._directory}/{name}")

    async def close(self) -> None:
        """Finish the deletions under way."""
        await asyncio.gather(*self._deleting)

    # -- Looking -----------------------------------------------------------------------------------

    def get(self, name: str) -> Volume:
        """The volume of that name.

        Raises:
            NotFound: dockerd's text.
        """
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def holds(self, name: str) -> bool:
        """Whether there is a volume with this name."""
        return name in self._volumes

    def list(self, filters: Filters) -> Sequence[Volume]:
        """The volumes that match, by name.

        Raises:
            InvalidArgument: an unknown filter, or a value that is none.
        """
        check_names(filters, FILTERS)
        dangling = [_truth("dangling", value) for value in filters.get("dangling", ())]
        return [
            volume
            for name, volume in sorted(self._volumes.items())
            if (not dangling or (not self.users(name)) in dangling)
            and (not filters.get("driver") or volume.record.driver in filters["driver"])
            and (not filters.get("name") or any(part in name for part in filters["name"]))
            and labels_match(volume.record.labels, filters.get("label", ()))
        ]

    def users(self, name: str, but: Container | None = None) -> Sequence[Container]:
        """The containers, running or not, that have this volume; `but` is not looked at."""
        return [
            container
            for container in self._registry
            if container is not but
            and any(
                mount.type == "volume" and mount.name == name for mount in container.record.mounts
            )
        ]

    async def usage(self) -> dict[str, tuple[int, int]]:
        """(users, bytes) of each volume by name; walks them all, in a thread."""
        paths = {name: volume.path for name, volume in self._volumes.items()}
        sizes = await asyncio.to_thread(
            lambda: {name: tree_size(path) for name, path in paths.items()}
        )
        return {
            name: (len(self.users(name)), size)
            for name, size in sizes.items()
            if name in self._volumes
        }

    # -- Making and removing -----------------------------------------------------------------------

    def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or find the one that has the name. Without a name it is anonymous.

        Raises:
            InvalidArgument, NotFound, Conflict: dockerd's texts.
        """
        chosen = name or secrets.token_hex(32)
        if (driver or DRIVER) != DRIVER:
            raise NotFound(
                f"create {chosen}: error looking up volume plugin {driver}: "
                f'plugin "{driver}" not found'
            )
        if (volume := self._volumes.get(name)) is not None:
            return volume
        _check_name(chosen)
        local_driver.check_options(chosen, dict(options or {}))
        extra = {} if name else {ANONYMOUS_LABEL: ""}
        row = VolumeRow(
            chosen,
            time.time_ns(),
            VolumeRecord(
                driver=DRIVER,
                options=dict(options or {}),
                labels={**(labels or {}), **extra},
                anonymous=not name,
            ),
        )
        volume = Volume(row, self._directory)
        os.makedirs(os.path.dirname(volume.path), mode=0o701, exist_ok=True)
        os.makedirs(volume.path, mode=0o755, exist_ok=True)
        self._rows.insert(row)
        self._volumes[chosen] = volume
        self._events.emit("volume", "create", chosen, {"driver": DRIVER})
        return volume

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and what is in it, for good; with `force` also one that is not there.

        Raises:
            NotFound, Conflict: dockerd's texts.
        """
        if force and name not in self._volumes:
            return
        volume = self.get(name)
        if users := self.users(name):
            identities = ", ".join(container.id for container in users)
            raise Conflict(f"remove {name}: volume is in use - [{identities}]")
        self._delete(volume)

    def _delete(self, volume: Volume) -> None:
        name = volume.name
        self._rows.delete(name)
        del self._volumes[name]
        local_driver.unmount(volume.path)
        doomed = f"{self._directory}/.{secrets.token_hex(8)}"
        os.rename(os.path.dirname(volume.path), doomed)
        self._events.emit("volume", "destroy", name, {"driver": DRIVER})
        task = asyncio.create_task(asyncio.to_thread(remove_tree, doomed))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    def remove_anonymous(
        self, mounts: Iterable[BoundMount], leaving: Container | None = None
    ) -> None:
        """Remove the anonymous volumes among a removed container's, unless another one has them;
        `leaving` is that container while it is still there."""
        for mount in mounts:
            volume = self._volumes.get(mount.name) if mount.type == "volume" else None
            if (
                volume is not None
                and volume.record.anonymous
                and not self.users(volume.name, leaving)
            ):
                self._delete(volume)

    async def prune(self, filters: Filters, *, named: bool) -> tuple[Sequence[str], int]:
        """Remove what no container has: anonymous ones, with `named` or the filter `all` others, too.

        Returns the names and the bytes set free.

        Raises:
            InvalidArgument: an unknown filter, or a value that is none.
        """
        check_names(filters, PRUNE_FILTERS)
        everything = named or any(_truth("all", value) for value in filters.get("all", ()))
        removed, freed = [], 0
        for volume in self.list({}):
            if (
                self.users(volume.name)
                or not (everything or volume.record.anonymous)
                or not labels_chosen(volume.record.labels, filters)
            ):
                continue
            size = await asyncio.to_thread(tree_size, volume.path)
            if volume.name in self._volumes and not self.users(volume.name):
                self.remove(volume.name)
                removed.append(volume.name)
                freed += size
        self._events.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    # -- In containers -----------------------------------------------------------------------------

    async def fill(self, mount: BoundMount, trees: Sequence[str]) -> None:
        """Copy what an image (its `trees`, top first) has at the mount's place into an empty volume.

        A volume that nobody uses gets all of it or, after a crash, nothing.

        Raises:
            OSError: it cannot be copied.
        """
        volume = self.get(mount.name)
        async with volume.lock:
            await self._mount(volume)
            try:
                seen = bool(volume.record.options) or self._running_users(volume.name)
                await asyncio.to_thread(fill, trees, mount.destination, volume.path, seen)
            finally:
                self._unmount_unused(volume)

    async def mount(self, container: Container) -> dict[str, str]:
        """Make a container's volumes ready for its start.

        Returns what to mount at a destination where not all of a volume is meant: paths, for the caller
        to give to `unbind` when the container has begun, or has not.

        Raises:
            NotFound: one of them is gone, or has no such place.
            RuntimeFailure, OSError: the kernel does not mount one.
        """
        bound: dict[str, str] = {}
        try:
            for number, mount in enumerate(container.record.mounts):
                if mount.type == "volume":
                    await self._mount(self.get(mount.name))
                if mount.type == "volume" and mount.subpath:
                    os.makedirs(self.places, mode=0o700, exist_ok=True)
                    place = f"{self.places}/{container.id}-{number}"
                    bound[mount.destination] = place
                    bind_below(mount, place)
        except BaseException:
            for place in bound.values():
                unbind(place)
            raise
        return bound

    def place(self, container: Container, name: str) -> str:
        """An empty directory to mount something at for the moment of a start, for `unbind`."""
        os.makedirs(self.places, mode=0o700, exist_ok=True)
        path = f"{self.places}/{container.id}-{name}"
        os.mkdir(path, 0o700)
        return path

    def started(self, container: Container) -> None:
        """Tell that a container's volumes are mounted."""
        for mount in container.record.mounts:
            if mount.type == "volume":
                self._events.emit(
                    "volume",
                    "mount",
                    mount.name,
                    {
                        "container": container.id,
                        "destination": mount.destination,
                        "driver": DRIVER,
                        "propagation": mount.propagation,
                        "read/write": "true" if mount.rw else "false",
                    },
                )

    def ended(self, container: Container, *, ran: bool = True) -> None:
        """A container does not run any more, or did not start."""
        for mount in container.record.mounts:
            if mount.type != "volume":
                continue
            if ran:
                attributes = {"container": container.id, "driver": DRIVER}
                self._events.emit("volume", "unmount", mount.name, attributes)
            if (volume := self._volumes.get(mount.name)) is not None:
                self._unmount_unused(volume)

    async def _mount(self, volume: Volume) -> None:
        if volume.record.options:
            await asyncio.to_thread(local_driver.mount, volume.record.options, volume.path)

    def _unmount_unused(self, volume: Volume) -> None:
        if volume.record.options and not self._running_users(volume.name):
            local_driver.unmount(volume.path)

    def _running_users(self, name: str) -> bool:
        return any(container.state.running for container in self.users(name))


def _check_name(name: str) -> None:
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric "
            "characters"
        )
    if len(name) > _NAME_LENGTH_MAX:
        raise invalid_volume_name(name)
    check_volume_name(name)


def _truth(name: str, value: str) -> bool:
    truth = parse_bool(value)
    if truth is None:
        raise InvalidArgument(f"invalid filter '{name}=[{value}]'")
    return truth
