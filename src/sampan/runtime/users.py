"""A user as `USER` and `--user` spell it, looked up in the container's own passwd and group files.

The look-up runs where the files are: in the init process behind pivot_root(2), or in an exec
behind setns(2), so a symbolic link in a hostile image leads nowhere but into the image.
Source: passwd(5), group(5); the syntax is Docker's (`user[:group]`, names or numbers).
"""

from __future__ import annotations

import errno
import os

from sampan.errors import RuntimeFailure

# The kernel's uid_t and gid_t; -1 means "no change" in setresuid(2) and is refused as an ID.
MAXIMUM_ID = (1 << 32) - 2
# A passwd file is a few kB; a hostile one must not fill the memory of the process that reads it.
MAXIMUM_FILE_BYTES = 16 << 20


class Identity:
    """Numbers to become, and the home directory that the passwd file names (or `/`)."""

    __slots__ = ("additional_gids", "gid", "home", "uid")

    def __init__(self, uid: int, gid: int, additional_gids: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.additional_gids = additional_gids
        self.home = home


def resolve(
    username: str,
    additional_groups: list[str],
    *,
    passwd_path: str = "/etc/passwd",
    group_path: str = "/etc/group",
) -> Identity:
    """Resolve `user[:group]`; an empty user is root.

    Without a group the user's primary group and its memberships count; with one, only that group.

    Raises:
        RuntimeFailure: stage `user`; a name that no file has, or a number out of range.
    """
    user, _, group = username.partition(":")
    user = user or "0"
    entry = _passwd_entry(user, _lines(passwd_path))
    if entry is not None:
        name, uid, gid, home = entry
    elif user.isdecimal():
        name, uid, gid, home = "", _number(user), 0, "/"
    else:
        raise RuntimeFailure(
            "user", f"unable to find user {user}: no matching entries in passwd file"
        )
    groups = _groups(_lines(group_path)) if group or additional_groups or name else []
    memberships = [number for _, number, members in groups if name in members] if name else []
    if group:
        gid, memberships = _gid(group, groups), []
    for extra in additional_groups:
        number = _gid(extra, groups)
        if number not in memberships:
            memberships.append(number)
    return Identity(uid, gid, memberships, home or "/")


def _passwd_entry(user: str, lines: list[str]) -> tuple[str, int, int, str] | None:
    """The first line whose name, or else whose number, is `user`; malformed lines are skipped."""
    by_number = None
    for line in lines:
        fields = line.split(":")
        if len(fields) < 4 or not (fields[2].isdecimal() and fields[3].isdecimal()):
            continue
        home = fields[5] if len(fields) > 5 else "/"
        if fields[0] == user:
            return fields[0], _number(fields[2]), _number(fields[3]), home
        if by_number is None and user.isdecimal() and int(fields[2]) == int(user):
            by_number = fields[0], _number(fields[2]), _number(fields[3]), home
    return by_number


def _groups(lines: list[str]) -> list[tuple[str, int, list[str]]]:
    groups = []
    for line in lines:
        fields = line.split(":")
        if len(fields) >= 3 and fields[2].isdecimal() and int(fields[2]) <= MAXIMUM_ID:
            members = fields[3].split(",") if len(fields) > 3 else []
            groups.append((fields[0], int(fields[2]), members))
    return groups


def _gid(group: str, groups: list[tuple[str, int, list[str]]]) -> int:
    for name, number, _ in groups:
        if name == group:
            return number
    if group.isdecimal():
        return _number(group)
    raise RuntimeFailure("user", f"unable to find group {group}: no matching entries in group file")


def _number(text: str) -> int:
    number = int(text)
    if number > MAXIMUM_ID:
        raise RuntimeFailure("user", f"uids and gids must be in range 0-{MAXIMUM_ID}: {text}")
    return number


def _lines(path: str) -> list[str]:
    """The lines of a regular file; none when there is no such file (an image may have neither)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            return []
        raise
    try:
        data = b""
        while len(data) < MAXIMUM_FILE_BYTES:
            try:
                part = os.read(fd, 1 << 16)
            except OSError:  # a directory, a device: nothing that names users
                return []
            if not part:
                break
            data += part
    finally:
        os.close(fd)
    return data.decode("utf-8", "surrogateescape").splitlines()
