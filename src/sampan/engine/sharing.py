"""`--ipc container:X` and `--pid container:X`: namespaces of another container that runs.

With an IPC namespace comes the `/dev/shm` of the other one. That is a mount in its mount namespace: a
thread goes there and takes a copy of it, which is put at a path for the moment of the start.
Source: ipc_namespaces(7), open_tree(2); the texts are dockerd 20.10's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from sampan.engine.container import Container
from sampan.engine.model import HostConfig
from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure
from sampan.linux import syscalls

SHM = "/dev/shm"
SHAREABLE = frozenset({"shareable", "host"})

Find = Callable[[str], Container]


def name_donors(host: HostConfig, find: Find) -> None:
    """Name the other containers by their IDs, when the container is created.

    Raises:
        InvalidArgument: there is no such container. Clients take a 404 for a missing image.
    """
    host.ipc_mode, host.pid_mode = (_named(mode, find) for mode in (host.ipc_mode, host.pid_mode))


def _named(mode: str, find: Find) -> str:
    reference = donor_name(mode)
    if not reference:
        return mode
    try:
        return f"container:{find(reference).id}"
    except NotFound as error:
        raise InvalidArgument(error.message) from error


def donor_name(mode: str) -> str:
    """The other container's name or ID, empty for all other modes."""
    kind, _, reference = mode.partition(":")
    return reference if kind == "container" else ""


def namespace_paths(container: Container, find: Find) -> dict[str, str]:
    """The namespaces that the container gets from others, by OCI type.

    Raises:
        NotFound, Conflict: one is gone, does not run, or does not share.
    """
    paths = {}
    host = container.host_config
    if reference := donor_name(host.ipc_mode):
        paths["ipc"] = f"/proc/{_ipc_donor(find(reference), container).state.pid}/ns/ipc"
    if reference := donor_name(host.pid_mode):
        paths["pid"] = f"/proc/{_running(find(reference), container).state.pid}/ns/pid"
    return paths


def place_shm(container: Container, find: Find, place: Callable[[], str]) -> dict[str, str]:
    """`/dev/shm` of the container whose IPC namespace is shared, at a path to mount it from.

    Returns destination → path, as `Volumes.mount` does; `place` makes the path, an empty directory.

    Raises:
        NotFound, Conflict: as `namespace_paths`.
        RuntimeFailure: it cannot be had.
    """
    reference = donor_name(container.host_config.ipc_mode)
    if not reference or any(mount.destination == SHM for mount in container.record.mounts):
        return {}
    donor = _ipc_donor(find(reference), container)
    try:
        tree = _in_mount_namespace(donor.state.pid)
        try:
            path = place()
            syscalls.move_mount(tree, syscalls.AT_FDCWD, path)
        finally:
            os.close(tree)
    except OSError as error:
        raise RuntimeFailure(
            "mount",
            f"{SHM} of container {donor.id} cannot be shared: {error.strerror}",
            path=SHM,
            errno=error.errno,
        ) from error
    return {SHM: path}


def _in_mount_namespace(pid: int) -> int:
    """A detached copy of what is mounted at /dev/shm in the mount namespace of process `pid`."""
    outcome: list[int | OSError] = []

    def take() -> None:
        # The thread ends there: it cannot come back, and nobody else shares its idea of "/".
        try:
            namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.unshare(syscalls.CLONE_FS)
                syscalls.setns(namespace, syscalls.CLONE_NEWNS)
            finally:
                os.close(namespace)
            outcome.append(syscalls.open_tree(syscalls.AT_FDCWD, SHM, syscalls.OPEN_TREE_CLONE))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=take, name="share-shm")
    thread.start()
    thread.join()
    result = outcome[0]
    if isinstance(result, OSError):
        raise result
    return result


def _ipc_donor(donor: Container, joining: Container) -> Container:
    if donor.host_config.ipc_mode not in SHAREABLE:
        raise Conflict(
            f"can't join IPC of container {donor.id}: non-shareable IPC (hint: use "
            "IpcMode:shareable for the donor container)"
        )
    return _running(donor, joining, f"can't join IPC of container {donor.id}: ")


def _running(donor: Container, joining: Container, head: str = "") -> Container:
    if donor is joining:
        raise Conflict(f"{head}container {donor.id} cannot share with itself")
    if not donor.state.running:
        raise Conflict(f"{head}container {donor.id} is not running")
    return donor
