"""A directory copied out of stacked trees, as a volume gets what its image has."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sampan.snapshots.copying import copy_directory
from sampan.snapshots.extract import OPAQUE

pytestmark = pytest.mark.root


@pytest.fixture
def stack(tmp_path: Path) -> tuple[Path, Path, Path]:
    """(upper, lower, target)"""
    made = tuple(tmp_path / name for name in ("upper", "lower", "target"))
    for path in made:
        path.mkdir()
    return made  # type: ignore[return-value]


def names(target: Path) -> list[str]:
    return sorted(str(path.relative_to(target)) for path in target.rglob("*"))


def test_merged_as_overlayfs_shows_it(stack: tuple[Path, Path, Path]) -> None:
    upper, lower, target = stack
    (lower / "d/hidden").mkdir(parents=True)
    (lower / "d/gone").write_text("x")
    (lower / "d/old").write_text("old")
    (lower / "d/hidden/below").write_text("x")
    (upper / "d/hidden").mkdir(parents=True)
    os.setxattr(upper / "d/hidden", OPAQUE, b"y")
    (upper / "d/new").write_text("new")
    os.mknod(upper / "d/gone", stat.S_IFCHR, 0)
    assert copy_directory([str(upper), str(lower)], "/d", str(target))
    assert names(target) == ["hidden", "new", "old"]
    assert not any(name.startswith("trusted.overlay") for name in os.listxattr(target / "hidden"))


def test_attributes(stack: tuple[Path, Path, Path]) -> None:
    upper, _, target = stack
    source = upper / "d"
    (source / "sub").mkdir(parents=True)
    (source / "f").write_text("content")
    os.link(source / "f", source / "sub/h")
    os.chown(source / "f", 12, 34)
    (source / "f").chmod(0o4751)
    os.setxattr(source / "f", "user.a", b"b")
    os.symlink("/etc/passwd", source / "l")
    os.lchown(source / "l", 5, 6)
    os.mkfifo(source / "p")
    os.mknod(source / "n", stat.S_IFCHR | 0o620, os.makedev(1, 3))
    with open(source / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
        file.truncate(16 << 20)
    for path in ("f", "sub"):
        os.utime(source / path, ns=(1_500_000_000, 1_234_567_891))
    source.chmod(0o1770)
    os.chown(source, 7, 8)
    assert copy_directory([str(upper)], "d", str(target))
    for path in ("", "f", "sub", "l", "p", "n", "sparse"):
        want, got = os.lstat(source / path), os.lstat(target / path)
        kept = ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns")
        assert [getattr(got, name) for name in kept] == [getattr(want, name) for name in kept], path
    assert os.readlink(target / "l") == "/etc/passwd"
    assert os.lstat(target / "f").st_ino == os.lstat(target / "sub/h").st_ino
    assert os.getxattr(target / "f", "user.a") == b"b"
    assert (target / "f").read_text() == "content"
    sparse = os.stat(target / "sparse")
    assert (sparse.st_size, sparse.st_blocks < 1000) == (16 << 20, True)


@pytest.mark.parametrize(
    ("links", "path", "found"),
    [
        ({"a": "real"}, "/a/d", True),
        ({"a": "/real"}, "/a/d/", True),
        ({"real/back": "../real"}, "/real/back/d", True),
        ({"out": "../../../real"}, "/out/d", True),
        ({"loop": "loop"}, "/loop/d", False),
        ({"file": "real/d/f"}, "/file", False),
        ({}, "/real/../../real/./d", True),
        ({}, "/nosuch", False),
    ],
)
def test_links_on_the_way_stay_inside(
    stack: tuple[Path, Path, Path], links: dict[str, str], path: str, found: bool
) -> None:
    upper, lower, target = stack
    (lower / "real/d").mkdir(parents=True)
    (lower / "real/d/f").write_text("x")
    for name, to in links.items():
        os.makedirs((upper / name).parent, exist_ok=True)
        os.symlink(to, upper / name)
    assert copy_directory([str(upper), str(lower)], path, str(target)) == found
    assert names(target) == (["f"] if found else [])


def test_nothing_below(stack: tuple[Path, Path, Path]) -> None:
    assert not copy_directory([], "/d", str(stack[2]))
