"""Where the command `sampan-oci` remembers its containers: `<root>/<id>/`.

    state.json   what `Record` holds, written to a temporary name and renamed
    start.sock   init waits here for `start`; gone once the program runs

The directory is made first and with mkdir(2), so that of two `create`s of one ID one is refused.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.linux.cgroups import manager as cgroups
from sampan.runtime import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.linux.cgroups.base import Cgroup

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_MAXIMUM_ID = 1024


class Record:
    """What is kept about a container; `config` is its configuration as it was at `create`."""

    __slots__ = (
        "bundle",
        "cgroup_path",
        "config",
        "created",
        "directory",
        "id",
        "pid",
        "start_time",
        "systemd",
    )

    def __init__(
        self,
        *,
        id: str,
        directory: str,
        bundle: str,
        config: dict[str, Any],
        cgroup_path: str = "",
        systemd: bool = False,
        created: str = "",
        pid: int = 0,
        start_time: int = 0,
    ) -> None:
        self.id = id
        self.directory = directory
        self.bundle = bundle
        self.config = config
        self.cgroup_path = cgroup_path
        self.systemd = systemd
        self.created = created
        self.pid = pid
        self.start_time = start_time

    @property
    def start_socket(self) -> str:
        return os.path.join(self.directory, "start.sock")

    @property
    def rootfs(self) -> str:
        path = (self.config.get("root") or {}).get("path") or ""
        return os.path.normpath(os.path.join(self.bundle, path))

    def cgroup(self) -> Cgroup | None:
        """The container's cgroup, if it was given one."""
        if not self.cgroup_path:
            return None
        return cgroups.open_cgroup(self.cgroup_path, systemd=self.systemd)

    def status(self) -> str:
        """`creating`, `created`, `running`, `paused` or `stopped`."""
        if not self.pid:
            return "creating"
        waiting = os.path.exists(self.start_socket)
        return control.state(self.pid, self.start_time, self.cgroup(), waiting=waiting)

    def to_state(self) -> dict[str, Any]:
        """What the verb `state` prints: runtime.md, "State", and what runc adds."""
        status = self.status()
        return {
            "ociVersion": self.config.get("ociVersion") or "1.0.2",
            "id": self.id,
            "pid": 0 if status == control.STOPPED else self.pid,
            "status": status,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": "",
            "annotations": self.config.get("annotations") or {},
        }

    def save(self) -> None:
        """Write the record so that a reader sees the old one or the new one."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "directory"}
        write_atomically(
            os.path.join(self.directory, "state.json"), jsontext.encode(values).encode()
        )


def write_atomically(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file under a temporary name beside it and rename it."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    os.rename(temporary, path)


def check_id(container_id: str) -> None:
    """Refuse an ID that is no plain file name.

    Raises:
        InvalidArgument: with runc's text.
    """
    fine = container_id and len(container_id) <= _MAXIMUM_ID and container_id not in (".", "..")
    if not fine or not _ID_CHARACTERS.issuperset(container_id):
        raise InvalidArgument(f"invalid container ID format: {container_id!r}")


class Store:
    """The containers under one `--root`."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container_id: str) -> str:
        check_id(container_id)
        return os.path.join(self.root, container_id)

    def make(self, container_id: str) -> str:
        """The directory of a new container.

        Raises:
            Conflict: the ID is taken.
        """
        path = self.directory(container_id)
        os.makedirs(self.root, 0o711, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            raise Conflict("container with given ID already exists") from None
        return path

    def load(self, container_id: str) -> Record:
        """Raises NotFound: `container does not exist`."""
        path = self.directory(container_id)
        try:
            with open(os.path.join(path, "state.json"), encoding="utf-8") as file:
                values = jsontext.decode(file.read())
        except FileNotFoundError:
            raise NotFound("container does not exist") from None
        return Record(directory=path, **values)

    def all(self) -> list[Record]:
        """Every container whose state is readable, by ID; one that is just made or deleted is not."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        records = []
        for name in names:
            try:
                records.append(self.load(name))
            except (NotFound, InvalidArgument, NotADirectoryError):
                continue
        return records

    def remove(self, container_id: str) -> None:
        """Forget a container; one that is not there is no failure."""
        path = self.directory(container_id)
        try:
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
            os.rmdir(path)
        except FileNotFoundError:
            pass
