"""Users and groups by the container's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.errors import RuntimeFailure
from sampan.runtime.users import resolve

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
bad line
web:x:33:44:www:/var/www:/bin/false
nohome:x:5:5
12:x:99:98::/twelve:
"""
GROUP = """\
root:x:0:root
bin:x:1:root,web
web:x:44:
tape:x:26:web
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "passwd").write_text(PASSWD)
    (tmp_path / "group").write_text(GROUP)
    return {"passwd_path": str(tmp_path / "passwd"), "group_path": str(tmp_path / "group")}


@pytest.mark.parametrize(
    ("user", "extra", "expected"),
    [
        ("", [], (0, 0, [0, 1], "/root")),
        ("web", [], (33, 44, [1, 26], "/var/www")),
        ("33", [], (33, 44, [1, 26], "/var/www")),
        ("web:tape", [], (33, 26, [], "/var/www")),
        ("web:77", [], (33, 77, [], "/var/www")),
        ("1000", [], (1000, 0, [], "/")),
        ("1000:1000", [], (1000, 1000, [], "/")),
        ("nohome", [], (5, 5, [], "/")),
        ("12", [], (99, 98, [], "/twelve")),
        ("1000", ["tape", "5"], (1000, 0, [26, 5], "/")),
    ],
)
def test_resolve(
    files: dict[str, str], user: str, extra: list[str], expected: tuple[int, int, list[int], str]
) -> None:
    """Names and numbers; memberships count unless a group is given."""
    found = resolve(user, extra, **files)
    assert (found.uid, found.gid, found.additional_gids, found.home) == expected


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("ghost", "unable to find user ghost: no matching entries in passwd file"),
        ("web:ghosts", "unable to find group ghosts: no matching entries in group file"),
        ("4294967295", "uids and gids must be in range"),
    ],
)
def test_unknown(files: dict[str, str], user: str, text: str) -> None:
    """What no file has is a failure of stage user."""
    with pytest.raises(RuntimeFailure, match=text) as caught:
        resolve(user, [], **files)
    assert caught.value.stage == "user"


def test_no_files() -> None:
    """An image without either file still runs as root or as a number."""
    found = resolve("7:8", [], passwd_path="/nosuch", group_path="/nosuch")
    assert (found.uid, found.gid) == (7, 8)


def test_hostile_file(tmp_path: Path) -> None:
    """A FIFO or a directory in its place neither blocks nor fails."""
    os.mkfifo(tmp_path / "passwd")
    found = resolve("0", [], passwd_path=str(tmp_path / "passwd"), group_path=str(tmp_path))
    assert found.uid == 0
