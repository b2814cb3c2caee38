"""The volume driver `local`: a directory below the data root, or what its options mount there.

Options are those of mount(8): `type`, `device` and `o`, a comma-separated list. What they say is
mounted on the volume's directory while a container that uses it runs. All functions block.
"""

from __future__ import annotations

import os
import socket

from sampan.errors import InvalidArgument, RuntimeFailure
from sampan.linux import mounts
from sampan.linux import syscalls as sys

OPTIONS = ("type", "device", "o")
_REQUIRED = ("device", "type")
_NFS = ("nfs", "nfs4")


def check_options(name: str, options: dict[str, str]) -> None:
    """Refuse options that can mean no mount.

    Raises:
        InvalidArgument: dockerd's texts.
    """
    for option in options:
        if option not in OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    for option in _REQUIRED if options else ():
        if not options.get(option):
            raise InvalidArgument(f'create {name}: missing required option: "{option}"')


def is_mounted(path: str) -> bool:
    """Whether something is mounted on a directory of ours; see `/proc/self/mountinfo` in proc(5)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.split(" ", 5)[4] == path for line in file)


def mount(options: dict[str, str], path: str) -> None:
    """Mount what the options say on `path`, unless it is there already.

    Raises:
        RuntimeFailure: stage `mount`: the kernel refuses; dockerd's text.
    """
    if is_mounted(path):
        return
    kind, device = options["type"], options["device"]
    words = _with_address(kind, options.get("o", ""))
    asked = mounts.parse_options(words)
    data = ",".join(asked.data)
    try:
        sys.mount(device, path, kind, asked.flags, data or None)
        for propagation in asked.propagation:
            sys.mount(None, path, None, propagation)
    except OSError as error:
        details = f", flags: {asked.flags:#x}" if asked.flags else ""
        details += f", data: {data}" if data else ""
        raise RuntimeFailure(
            "mount",
            f"error while mounting volume '{path}': failed to mount local volume: mount "
            f"{device}:{path}{details}: {os.strerror(error.errno or 0).lower()}",
            path=path,
            errno=error.errno,
        ) from error


def unmount(path: str) -> None:
    """Take the mount away; without effect when there is none. Files still open keep it alive."""
    if is_mounted(path):
        sys.umount2(path, sys.MNT_DETACH)


def _with_address(kind: str, text: str) -> list[str]:
    """The words of `o`; `addr=` of nfs as an address, for the kernel looks no names up."""
    words = [word for word in text.split(",") if word]
    for index, word in enumerate(words):
        key, _, value = word.partition("=")
        if kind in _NFS and key == "addr":
            try:
                found = socket.getaddrinfo(value, None, type=socket.SOCK_STREAM)
            except OSError as error:
                raise RuntimeFailure(
                    "mount", f"error resolving passed in network volume address: {value}: {error}"
                ) from error
            words[index] = f"addr={found[0][4][0]}"
    return words
