"""`--storage-opt size=10G`: how much of the data root's file system a container may take.

dockerd's rules and texts; its sizes are those of RAM, so that `10G` is 10 GiB. Where dockerd wants xfs,
any file system will do that keeps project quotas, ext4 for one.
Source: dockerd 20.10 asked; moby, daemon/graphdriver/overlay2 `CreateReadWrite`, `parseOptions`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sampan.errors import InvalidArgument, RuntimeFailure

DAEMON_PREFIX = "overlay2."
_HINT = "mount the file system of the data root with the option prjquota"
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_LARGEST = 1 << 62


def container_size(options: Mapping[str, str] | None, default_bytes: int, supported: bool) -> int:
    """The size in bytes that a container is limited to, 0 for no limit.

    `default_bytes` is for one that names none, `supported` whether a limit can be kept here.

    Raises:
        RuntimeFailure: a limit is asked for that cannot be kept, or something else than a size.
    """
    named = {name.lower(): value for name, value in (options or {}).items()}
    if "size" in named and not supported:
        raise RuntimeFailure(
            "quota",
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            hint=f"or on ext4: {_HINT}",
        )
    size = default_bytes
    for name, value in named.items():
        if name != "size":
            raise RuntimeFailure("quota", f"Unknown option {name}")
        try:
            size = parse_size(value)
        except InvalidArgument as error:
            raise RuntimeFailure("quota", error.message) from error
    return size


def default_size(options: Sequence[str]) -> int:
    """The size in bytes of every container, by the daemon's `overlay2.size=20G`; 0 for no limit.

    Raises:
        InvalidArgument: an option that overlay2 does not have, or no size.
    """
    size = 0
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise InvalidArgument(f"Unable to parse key/value option: {option}")
        match (
            key.strip().lower().removeprefix(DAEMON_PREFIX),
            key.lower().startswith(DAEMON_PREFIX),
        ):
            case "size", True:
                size = parse_size(value.strip())
            case "override_kernel_check", True:
                pass  # no kernel is checked
            case _:
                raise InvalidArgument(f"overlay2: unknown option {key.strip()}")
    return size


def check_default(size_bytes: int, supported: bool) -> None:
    """Refuse to run an engine whose containers would not have the limit that the daemon was told.

    Raises:
        InvalidArgument: the file system keeps none.
    """
    if size_bytes and not supported:
        raise InvalidArgument(
            "Storage option overlay2.size not supported. Filesystem does not support Project Quota",
            hint=_HINT,
        )


def parse_size(text: str) -> int:
    """Bytes of `10G`, `1.5gb`, `512 MiB` or plain `1048576`: powers of 1024.

    Raises:
        InvalidArgument: it is no size; dockerd's text.
    """
    match = _SIZE.fullmatch(text)
    size = 0
    if match is not None:
        size = int(float(match[1]) * (1 << 10 * " kmgtp".index((match[2] or " ").lower())))
    if match is None or size > _LARGEST:
        raise InvalidArgument(f"invalid size: '{text}'")
    return size
