"""The tree of a container that does not run, put together as a start would: layers, volumes, binds.

Everything is mounted in a mount namespace of a thread that ends at once, and what is handed out is a
detached copy of the mounts: the machine's own namespace never sees them, and they go with the
descriptor, also when the daemon is killed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sampan.errors import RuntimeFailure
from sampan.linux import rooted, syscalls
from sampan.linux.mounts import Mount, attach_tree, clone_tree, parse_options, perform


class Bind(NamedTuple):
    """A file or directory of the machine in the tree; `options` are words of mount(8)."""

    source: str
    destination: str
    options: Sequence[str] = ("rbind", "rw")


def assemble(
    place: str, rootfs: Sequence[Mount], binds: Sequence[Bind], *, writable: bool = True
) -> int:
    """A descriptor (O_PATH) of the root of the tree, the caller's to close. Blocks.

    `place` is an empty directory to mount on. Mount points that the layers do not have are made, as a
    start does; so this is not for a container that runs. Closing may flush the layer to disk.

    Raises:
        RuntimeFailure: something cannot be mounted; it is named.
    """
    # An executor's thread hands failures over; with its shutdown the thread ends, and the namespace.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="assembly") as executor:
        return executor.submit(_mounted, place, rootfs, binds, writable).result()


def _mounted(place: str, rootfs: Sequence[Mount], binds: Sequence[Bind], writable: bool) -> int:
    syscalls.unshare(syscalls.CLONE_NEWNS)  # of this thread alone
    syscalls.mount(None, "/", None, syscalls.MS_SLAVE | syscalls.MS_REC)
    try:
        for mount in rootfs:
            perform(Mount(mount.type, mount.source, place, mount.options))
        root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _failure(error, place) from error
    try:
        for bind in binds:
            try:
                _bind(root, bind)
            except OSError as error:
                raise _failure(error, bind.destination) from error
        if not writable:
            syscalls.mount_setattr(root, set_attributes=syscalls.MOUNT_ATTR_RDONLY)
        return clone_tree(b"", recursive=True, directory=root)
    finally:
        os.close(root)


def _bind(root: int, bind: Bind) -> None:
    options = parse_options(bind.options)
    tree = clone_tree(bind.source, recursive=bool(options.flags & syscalls.MS_REC))
    try:
        is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        make = rooted.make_directory if is_directory else rooted.make_file
        target, _ = make(root, bind.destination)
        try:
            attach_tree(tree, options, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def _failure(error: OSError, path: str) -> RuntimeFailure:
    reason = os.strerror(error.errno or 0).lower()
    return RuntimeFailure(
        "mount", f"mounting {path} failed: {reason}", path=path, errno=error.errno
    )
