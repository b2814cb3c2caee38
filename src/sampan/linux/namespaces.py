"""Namespaces: their kinds, joining, ID mappings, clock offsets; see namespaces(7)."""

from __future__ import annotations

import os

from sampan.linux import process
from sampan.linux import syscalls as sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FLAGS: dict[str, int] = {
    "cgroup": sys.CLONE_NEWCGROUP,
    "ipc": sys.CLONE_NEWIPC,
    "mount": sys.CLONE_NEWNS,
    "network": sys.CLONE_NEWNET,
    "pid": sys.CLONE_NEWPID,
    "time": sys.CLONE_NEWTIME,
    "user": sys.CLONE_NEWUSER,
    "uts": sys.CLONE_NEWUTS,
}
"""The OCI runtime-spec's name of a kind → the kernel's flag."""

FILES: dict[str, str] = {
    "cgroup": "cgroup",
    "ipc": "ipc",
    "mount": "mnt",
    "network": "net",
    "pid": "pid",
    "time": "time",
    "user": "user",
    "uts": "uts",
}
"""The OCI runtime-spec's name of a kind → its file in /proc/PID/ns."""

_CLOCKS = ("monotonic", "boottime")


def path_of(pid: int, kind: str) -> str:
    """The file in /proc of a process's namespace."""
    return f"/proc/{pid}/ns/{FILES[kind]}"


def available() -> list[str]:
    """The kinds that this kernel has, sorted."""
    present = os.listdir("/proc/self/ns")
    return sorted(kind for kind, name in FILES.items() if name in present)


def same(pid: int, other: int | str, kind: str) -> bool:
    """Are both processes in one namespace of a kind?"""
    first = os.stat(f"/proc/{pid}/ns/{FILES[kind]}")
    second = os.stat(f"/proc/{other}/ns/{FILES[kind]}")
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def open_namespace(path: str, kind: str) -> int:
    """A file descriptor of the namespace file at `path`; setns(2) checks that it is of the kind.

    Raises:
        OSError: the path cannot be opened.
    """
    del kind
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def map_lines(mappings: Sequence[Mapping[str, Any]]) -> bytes:
    """OCI ID mappings as the text of /proc/PID/uid_map."""
    return "".join(
        f"{row['containerID']} {row['hostID']} {row['size']}\n" for row in mappings
    ).encode()


def write_mappings(
    pid: int, uids: Sequence[Mapping[str, Any]], gids: Sequence[Mapping[str, Any]]
) -> None:
    """Map the IDs of the user namespace of `pid`, as root outside of it; see user_namespaces(7).

    Raises:
        OSError: EINVAL for overlapping or empty mappings, EPERM without the privilege.
    """
    for name, rows in (("uid_map", uids), ("gid_map", gids)):
        if rows:
            write_file(f"/proc/{pid}/{name}", map_lines(rows))


def user_namespace(uids: Sequence[Mapping[str, Any]], gids: Sequence[Mapping[str, Any]]) -> int:
    """A file descriptor of a new user namespace with these mappings and no process in it.

    For idmapped mounts: mount_setattr(2) takes it with MOUNT_ATTR_IDMAP.
    """
    pid, pidfd = process.clone(sys.CLONE_NEWUSER, own_child=True)
    if pid == 0:
        sys.libc.pause()
        os._exit(0)
    try:
        write_mappings(pid, uids, gids)
        return os.open(path_of(pid, "user"), os.O_RDONLY | os.O_CLOEXEC)
    finally:
        sys.pidfd_send_signal(pidfd, sys.SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, 0)


def write_time_offsets(offsets: Mapping[str, Mapping[str, int]]) -> None:
    """Set the clocks of the time namespace that this process's children will be in.

    `offsets`: clock (`monotonic`, `boottime`) → `secs`, `nanosecs`; see time_namespaces(7).

    Raises:
        ValueError: an unknown clock.
        OSError: ERANGE for a clock below zero, EACCES once a process is inside.
    """
    for clock in offsets:
        if clock not in _CLOCKS:
            raise ValueError(f"no such clock in a time namespace: {clock}")
    lines = "".join(
        f"{clock} {value.get('secs', 0)} {value.get('nanosecs', 0)}\n"
        for clock, value in offsets.items()
    )
    write_file("/proc/self/timens_offsets", lines.encode())


def write_file(path: str, data: bytes, *, directory: int | None = None) -> None:
    """Write a kernel file in one write(2); the error names the path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, data)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)
