"""An archive put into a tree: contained where links are followed, and strict where they are not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sampan.errors import Forbidden, InvalidArgument, SampanError, Unavailable
from sampan.oci import tar
from sampan.snapshots import tree_write
from sampan.snapshots.tree_write import Rules
from support import hostile
from support.tars import archive, directory, file, reader, symlink

pytestmark = pytest.mark.root


def put(top: Path, data: bytes, *, where: str = "/in", **rules: object) -> None:
    """Into the directory `in` of a tree; strict with follow=False."""
    follow = rules.get("follow", True)
    root = os.open(top if follow else f"{top}{where}", os.O_PATH)
    try:
        tree_write.put(reader(data, 700), root, where, Rules(str(top), **rules), lambda: None)  # type: ignore[arg-type]
    finally:
        os.close(root)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "in").mkdir(parents=True)
    (top / "other").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    return top


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("name", hostile.cases())
def test_hostile_archives(tree: Path, name: str, follow: bool) -> None:
    data, _ = hostile.cases()[name]
    outside = tree.parent / "outside"
    before, descriptors = outside.stat(), len(os.listdir("/proc/self/fd"))
    try:
        put(tree, data, follow=follow)
    except (SampanError, tar.BadArchive):
        pass
    assert outside.stat() == before and (outside / "secret").read_text() == "secret"
    assert sorted(os.listdir(tree.parent)) == ["outside", "tree"]
    if not follow:
        assert sorted(os.listdir(tree)) == ["in", "other"] and os.listdir(tree / "other") == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_through_links(tree: Path) -> None:
    """Followed in the tree; not at all in an archive that is not trusted with it."""
    data = archive([symlink("l", "/other"), file("l/f", b"x")])
    put(tree, data)
    assert (tree / "other" / "f").read_bytes() == b"x"
    with pytest.raises(InvalidArgument, match="/in/l/g: "):
        put(tree, archive([symlink("l", "/other"), file("l/g", b"x")]), follow=False)
    outside = tree.parent / "outside"
    with pytest.raises(InvalidArgument):
        put(tree, archive([symlink("o", str(outside)), file("o/g", b"x")]), follow=False)
    (tree / "in" / "here").symlink_to(outside)
    with pytest.raises(InvalidArgument):
        put(tree, archive([file("here/g", b"x")]), follow=False)
    assert os.listdir(outside) == ["secret"]


def test_renamed(tree: Path) -> None:
    put(tree, archive([directory("old"), file("old/f", b"1")]), renamed=(b"old", b"new"))
    put(tree, archive([directory("."), file("./g", b"2")]), renamed=(b".", b"dot"))
    put(tree, archive([file("/h", b"3")]), renamed=(b"", b"root"))
    found = sorted(str(path.relative_to(tree / "in")) for path in (tree / "in").rglob("*"))
    assert found == ["dot", "dot/g", "new", "new/f", "root", "root/h"]


def test_owners(tree: Path) -> None:
    data = archive([directory("d/e"), file("d/f", b"x")])
    put(tree, data, owner=(7, 8))
    for path in (tree / "in").rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (7, 8), path


def test_a_mount_point_stays(tree: Path) -> None:
    from sampan.linux import syscalls

    (tree / "in" / "d" / "mounted").mkdir(parents=True)
    syscalls.mount("tmpfs", str(tree / "in" / "d" / "mounted"), "tmpfs", 0, None)
    try:
        (tree / "in" / "d" / "mounted" / "kept").write_text("kept")
        with pytest.raises(InvalidArgument, match="/in/d: device or resource busy"):
            put(tree, archive([file("d", b"x")]))
        assert (tree / "in" / "d" / "mounted" / "kept").read_text() == "kept"
        syscalls.mount(
            None, str(tree / "in" / "d" / "mounted"), None, syscalls.MS_REMOUNT | syscalls.MS_RDONLY
        )
        with pytest.raises(Forbidden, match="/in/d/mounted/x: read-only file system"):
            put(tree, archive([file("d/mounted/x", b"x")]))
        syscalls.mount(
            None, str(tree / "in" / "d" / "mounted"), None, syscalls.MS_REMOUNT, "size=8192"
        )
        with pytest.raises(Unavailable, match="/in/d/mounted/x: no space left on device"):
            put(tree, archive([file("d/mounted/x", b"x" * 100_000)]))
    finally:
        syscalls.umount2(str(tree / "in" / "d" / "mounted"))


def test_what_is_replaced(tree: Path) -> None:
    top = tree / "in"
    (top / "d" / "deep").mkdir(parents=True)
    (top / "d" / "deep" / "f").write_text("f")
    (top / "l").symlink_to("d")
    put(tree, archive([file("l", b"file"), file("d", b"file"), directory("d"), file("d/new", b"")]))
    assert (top / "l").is_file() and not (top / "l").is_symlink()
    assert os.listdir(top / "d") == ["new"]
    for data in (archive([file("d", b"")]), archive([directory("l")])):
        with pytest.raises(InvalidArgument, match="cannot overwrite"):
            put(tree, data, same_kind=True)
    assert stat.S_ISDIR((top / "d").stat().st_mode)


def test_the_check_ends_it(tree: Path) -> None:
    """Between two entries, and after the last."""
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Unavailable("enough")

    root = os.open(tree, os.O_PATH)
    try:
        for members in ([file(name, b"") for name in "abcd"], [file(name, b"") for name in "ab"]):
            calls.clear()
            with pytest.raises(Unavailable, match="enough"):
                tree_write.put(reader(archive(members), 700), root, "/in", Rules("/tmp"), check)
    finally:
        os.close(root)
    assert sorted(os.listdir(tree / "in")) == ["a", "b"]
