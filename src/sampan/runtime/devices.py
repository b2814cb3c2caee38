"""Device nodes and the links of /dev; see config-linux.md, "Devices" and "Default Devices"."""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import RuntimeFailure
from sampan.linux import rooted
from sampan.linux import syscalls as sys
from sampan.runtime.plan import DEFAULT_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.runtime.messages import Progress

_KINDS = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR, "p": stat.S_IFIFO}
_DEFAULT_MODE = 0o666
_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)


def make_devices(root_fd: int, listed: Sequence[Mapping[str, Any]], progress: Progress) -> None:
    """Make the default devices and the listed ones, which win; umask must be 0.

    Raises:
        RuntimeFailure: something else is at a device's path, or the type is none.
    """
    named = {os.path.normpath(device["path"]) for device in listed}
    directory = rooted.make_directory(root_fd, "/dev")[0]
    try:
        for path, major, minor in DEFAULT_DEVICES:
            if path not in named:
                progress.path = path
                mode = stat.S_IFCHR | _DEFAULT_MODE
                _make_node(directory, path[5:], path, mode, os.makedev(major, minor), 0, 0)
    finally:
        os.close(directory)
    for device in listed:
        progress.path = device["path"]
        _make_listed(root_fd, device)


def _make_listed(root_fd: int, device: Mapping[str, Any]) -> None:
    path = os.path.normpath(device["path"])
    kind = _KINDS.get(device.get("type") or "")
    if kind is None:
        raise RuntimeFailure("device", f"invalid device type {device.get('type')!r}", path=path)
    mode = device["fileMode"] if device.get("fileMode") is not None else _DEFAULT_MODE
    number = 0
    if kind != stat.S_IFIFO:
        number = os.makedev(device.get("major") or 0, device.get("minor") or 0)
    directory, name = rooted.parent_inside(root_fd, path)
    try:
        owner = device.get("uid") or 0, device.get("gid") or 0
        _make_node(directory, name, path, kind | stat.S_IMODE(mode), number, *owner)
    finally:
        os.close(directory)


def _make_node(
    directory: int, name: str, path: str, mode: int, number: int, uid: int, gid: int
) -> None:
    try:
        os.mknod(name, mode, number, dir_fd=directory)
    except FileExistsError:
        _check_existing(directory, name, path, mode, number)
    except PermissionError:
        # a user namespace owns no device: take the machine's node instead
        _bind_node(directory, name, path, mode, number)
    else:
        if uid or gid:
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)


def _check_existing(directory: int, name: str, path: str, mode: int, number: int) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode) or status.st_rdev != number:
        raise RuntimeFailure(
            "device",
            f"device {path}: another file exists there",
            path=path,
            errno=errno.EEXIST,
        )


def _bind_node(directory: int, name: str, path: str, mode: int, number: int) -> None:
    node = _open_node(path, mode, number)
    try:
        tree = sys.open_tree(node, b"", sys.OPEN_TREE_CLONE)
    finally:
        os.close(node)
    try:
        target, _ = rooted.make_file(directory, name)
        try:
            sys.move_mount(tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def _open_node(path: str, mode: int, number: int) -> int:
    """The machine's node of this device, at the same path or elsewhere in /dev.

    Raises:
        RuntimeFailure: there is none (stage `device`, ENOENT).
    """
    kind = "block" if stat.S_ISBLK(mode) else "char"
    by_number = f"/dev/{kind}/{os.major(number)}:{os.minor(number)}"
    for candidate in (
        path,
        os.path.realpath(by_number),
        *map("/dev/{}".format, os.listdir("/dev")),
    ):
        try:
            fd = os.open(candidate, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        status = os.fstat(fd)
        if stat.S_IFMT(status.st_mode) == stat.S_IFMT(mode) and status.st_rdev == number:
            return fd
        os.close(fd)
    raise RuntimeFailure(
        "device",
        f"device {path}: the machine has no node of {kind} device {os.major(number)}:"
        f"{os.minor(number)}, and a user namespace can make none",
        path=path,
        errno=errno.ENOENT,
    )


def make_links(root_fd: int) -> None:
    """Make /dev/fd, stdin, stdout, stderr and ptmx where nothing is."""
    directory = rooted.make_directory(root_fd, "/dev")[0]
    try:
        for target, name in _LINKS:
            _link(directory, target, name)
        if os.path.exists("/proc/kcore"):
            _link(directory, "/proc/kcore", "core")
        _link_ptmx(directory)
    finally:
        os.close(directory)


def _link(directory: int, target: str, name: str) -> None:
    try:
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        pass


def _link_ptmx(directory: int) -> None:
    """/dev/ptmx must lead to the container's own devpts, whatever the image has there."""
    try:
        os.symlink("pts/ptmx", "ptmx", dir_fd=directory)
    except FileExistsError:
        status = os.stat("ptmx", dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return
        os.unlink("ptmx", dir_fd=directory)
        os.symlink("pts/ptmx", "ptmx", dir_fd=directory)
