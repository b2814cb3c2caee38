"""A part of a tree as a tar, while somebody hostile may be changing it.

What is asked for stands under its own name, as `docker cp` wants it: `etc/`, `etc/hosts` … or for one
file just that. Where the kernel's own file systems (proc, sysfs …) are mounted in a tree, there is an
empty directory: they hold no files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator

from sampan.linux import syscalls
from sampan.snapshots.places import Place
from sampan.snapshots.tar_stream import TarStream
from sampan.snapshots.view import Directory, Found, View, walk

_KERNELS = frozenset(
    (
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0x6E736673,  # nsfs
        0xCAFE4A11,  # bpf
        0x62656570,  # configfs
        0x65735546,  # fusectl
        0x42494E4D,  # binfmt_misc
    )
)
"""linux/magic.h"""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def archive(place: Place, shown: bytes, empty: Container[bytes] = frozenset()) -> Iterator[bytes]:
    """The tar of what is at a place, in pieces; where it is called `shown`. Blocks.

    Links are put in as links. A socket, which no tar can hold, gives an empty archive. `empty` are
    directories, relative to the place, of which only themselves are wanted.

    Raises:
        OSError: it is gone, or cannot be read.
        RuntimeFailure: a path is too long for a tar.
    """
    if stat.S_ISDIR(place.status.st_mode):
        return _tree(place, shown.rstrip(b"/") + b"/", empty)
    return _single(place, shown)


def _tree(place: Place, under: bytes, empty: Container[bytes]) -> Iterator[bytes]:
    kernels: dict[int, bool] = {}  # by device

    def enters(directory: Directory, found: Found) -> bool:
        device = found.status.st_dev
        if device not in kernels:
            kernels[device] = syscalls.file_system_type(directory.fd(0)) in _KERNELS
        return not kernels[device] and directory.path not in empty

    stream = TarStream(under)
    top = os.open(place.name or b".", _DIRECTORY, dir_fd=place.directory)
    try:
        with View([f"/proc/self/fd/{top}"]) as view:
            stream.add_root(top)
            kernels[os.fstat(top).st_dev] = False
            for directory, name, found in walk(view, enters=enters):
                if stat.S_ISREG(found.status.st_mode):
                    yield from stream.add_file(directory, name, 0)
                else:
                    stream.add(directory, name, found.status, 0)
                yield from stream.pieces()
    finally:
        os.close(top)
    yield stream.finish()


def _single(place: Place, shown: bytes) -> Iterator[bytes]:
    stream = TarStream()
    with View([f"/proc/self/fd/{place.directory}"]) as view:
        parent = view.root()
        if stat.S_ISREG(place.status.st_mode):
            yield from stream.add_file(parent, place.name, 0, called=shown)
        else:
            stream.add(parent, place.name, place.status, 0, called=shown)
    yield stream.finish()
