"""Copies of the database as it was before each migration, for who has to go back.

They are ordinary SQLite files in `backups/` beside it, named after the schema version they have:
`engine.db.v4`. One is there whole or not at all.
"""

from __future__ import annotations

import errno
import os
import sqlite3

from sampan.errors import Unavailable

KEPT = 3


def directory_of(path: str) -> str:
    """Where the backups of a database are."""
    return os.path.join(os.path.dirname(path), "backups")


def keep(connection: sqlite3.Connection, path: str, version: int) -> None:
    """Copy the database that `connection` has open and which is of this version; older copies go.

    Raises:
        Unavailable: there is no room for it, or another reason that the disk has.
    """
    kept = f"{directory_of(path)}/{os.path.basename(path)}.v{version}"
    temporary = f"{kept}.new"
    try:
        os.makedirs(directory_of(path), mode=0o700, exist_ok=True)
        _copy(connection, temporary)
        os.replace(temporary, kept)
    except (OSError, sqlite3.Error) as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Unavailable(
            f"{path} has to be brought to a new schema, and no backup could be kept: {error}",
            hint="make room on the disk" if full or "full" in str(error) else "",
        ) from error
    for _, old in _all(path)[:-KEPT]:
        os.unlink(old)


def newest(path: str) -> str:
    """The latest copy; empty when there is none."""
    found = _all(path)
    return found[-1][1] if found else ""


def _copy(connection: sqlite3.Connection, target: str) -> None:
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    copy = sqlite3.connect(target)
    try:
        connection.backup(copy)
        # A file of its own, without a log beside it.
        copy.execute("PRAGMA journal_mode = DELETE")
    finally:
        copy.close()
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _all(path: str) -> list[tuple[int, str]]:
    """(version, path) of every copy, the oldest first."""
    directory, prefix = directory_of(path), f"{os.path.basename(path)}.v"
    if not os.path.isdir(directory):
        return []
    versions = [
        int(name.removeprefix(prefix))
        for name in os.listdir(directory)
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    ]
    return [(version, f"{directory}/{prefix}{version}") for version in sorted(versions)]
