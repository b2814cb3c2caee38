"""What a path below the data root belongs to, and a walk that gives every byte to its owner.

Nothing here knows which objects there are: that a path lies where blobs lie does not make it a blob
that somebody needs. `sampan.engine.space` compares the two.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from sampan.oci.digest import is_hex64

BLOCK = 512
"""The unit of st_blocks; see stat(2)."""


class Kind(StrEnum):
    """Kinds of owners, in the words that users read."""

    BLOB = "blob"
    LAYER = "layer"
    CONTAINER = "container"
    DOWNLOAD = "download"
    OPERATION = "operation"
    REMOVAL = "removal"
    POOL = "pool"
    PROFILE = "profile"
    VOLUME = "volume"
    ENGINE = "engine"
    UNKNOWN = "unknown"


class Owner(NamedTuple):
    """Whom a path belongs to. `key`: a digest, a chain ID, a container's ID, or a path."""

    kind: Kind
    key: str


@dataclass(slots=True)
class Sum:
    """Files of one owner: their number, lengths, allocated bytes; `content` is the length of a
    blob, and of the regular files in a layer's tree."""

    files: int = 0
    bytes: int = 0
    disk_bytes: int = 0
    content: int = 0


ENGINE_FILES = frozenset(
    (
        "daemon.lock",
        "engine.db",
        "engine.db-journal",
        "engine.db-shm",
        "engine.db-wal",
        "index.json",
        "oci-layout",
    )
)
_ENGINE_DIRECTORIES = frozenset(
    (
        "active",
        "backups",
        "blobs",
        "containers",
        "events",
        "ingest",
        "l",
        "layers",
        "seccomp",
        "spare",
        "trash",
        "volumes",
    )
)
_PARTIAL = "sha256-"


def owner_of(path: str) -> Owner:
    """Whom a path relative to the data root belongs to; pure."""
    parts = path.strip("/").split("/")
    first, second = parts[0], parts[1] if len(parts) > 1 else ""
    if not first or first in ENGINE_FILES or (first in _ENGINE_DIRECTORIES and not second):
        return Owner(Kind.ENGINE, first)
    match first:
        case "blobs":
            return _blob_owner(parts)
        case "ingest":
            return _ingest_owner(second)
        case "layers":
            if is_hex64(second):
                return Owner(Kind.LAYER, f"sha256:{second}")
            return Owner(Kind.OPERATION, f"layers/{second}")
        case "active" | "containers":
            if second.startswith(".deep-"):
                return Owner(Kind.REMOVAL, f"{first}/{second}")
            return Owner(Kind.CONTAINER, second)
        case "backups" | "events" | "l":
            return Owner(Kind.ENGINE, first)
        case "seccomp":
            return Owner(Kind.PROFILE, second)
        case "spare":
            return Owner(Kind.POOL, first)
        case "trash":
            return Owner(Kind.REMOVAL, f"trash/{second}")
        case "volumes":
            return Owner(Kind.VOLUME, second)
    return Owner(Kind.UNKNOWN, f"{first}/{second}" if second else first)


def _blob_owner(parts: list[str]) -> Owner:
    if len(parts) == 2 and parts[1] == "sha256":
        return Owner(Kind.ENGINE, "blobs")
    if len(parts) == 3 and parts[1] == "sha256" and is_hex64(parts[2]):
        return Owner(Kind.BLOB, f"sha256:{parts[2]}")
    return Owner(Kind.UNKNOWN, "/".join(parts[:3]))


def _ingest_owner(name: str) -> Owner:
    digits = name.removeprefix(_PARTIAL)
    if digits != name and is_hex64(digits):
        return Owner(Kind.DOWNLOAD, f"sha256:{digits}")
    return Owner(Kind.OPERATION, f"ingest/{name}")


def walk(root: str) -> dict[Owner, Sum]:
    """Everything on the data root's file system by its owner. Blocks; costs what the tree has.

    A file with several names counts once; what disappears meanwhile does not count. Other file
    systems mounted below are left out.
    """
    sums: dict[Owner, Sum] = {}
    device = os.stat(root).st_dev
    seen: set[int] = set()
    _count(sums, "", os.lstat(root), seen)
    pending = [""]
    while pending:
        directory = pending.pop()
        try:
            entries = os.scandir(os.path.join(root, directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                path = f"{directory}/{entry.name}" if directory else entry.name
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if found.st_dev != device:
                    continue
                _count(sums, path, found, seen)
                if stat.S_ISDIR(found.st_mode):
                    pending.append(path)
    return sums


def _count(sums: dict[Owner, Sum], path: str, found: os.stat_result, seen: set[int]) -> None:
    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        if found.st_ino in seen:
            return
        seen.add(found.st_ino)
    owner = owner_of(path)
    total = sums.setdefault(owner, Sum())
    total.files += 1
    total.bytes += found.st_size
    total.disk_bytes += found.st_blocks * BLOCK
    if stat.S_ISREG(found.st_mode) and (owner.kind is Kind.BLOB or _is_in_tree(owner, path)):
        total.content += found.st_size


def _is_in_tree(owner: Owner, path: str) -> bool:
    return owner.kind is Kind.LAYER and path.split("/", 3)[2] == "fs"
