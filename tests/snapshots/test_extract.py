"""Layers are laid out as they say; whiteouts become overlayfs's."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from sampan.oci import tar, tar_writer
from sampan.snapshots.extract import OPAQUE, BadLayer, clean, extract, is_opaque
from support.tars import archive, device, directory, entry, file, hard_link, reader, symlink

pytestmark = pytest.mark.root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    return path


def lay_out(tree: Path, *members: bytes) -> int:
    return extract(reader(archive(members)), str(tree))


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def test_attributes(tree: Path) -> None:
    """Owner, mode with set-user-ID, time and extended attributes arrive."""
    size = lay_out(
        tree,
        directory("./", mode=0o750, uid=3, mtime_ns=5 * 10**9),
        directory("d", mode=0o1777, uid=7, gid=8, mtime_ns=10**9 + 1),
        file("d/f", b"hello", mode=0o4755, uid=1, gid=2, mtime_ns=2 * 10**9 + 5),
        file("d/g", b"", mode=0o666, xattrs={b"user.x": b"1", b"security.capability": CAPABILITY}),
        symlink("d/l", "f", uid=9, mtime_ns=3 * 10**9),
    )
    assert size == 5
    root, d, f, g, link = (os.lstat(tree / name) for name in (".", "d", "d/f", "d/g", "d/l"))
    assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_mtime_ns) == (0o750, 3, 5 * 10**9)
    assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_gid, d.st_mtime_ns) == (0o1777, 7, 8, 10**9 + 1)
    assert (stat.S_IMODE(f.st_mode), f.st_uid, f.st_gid, f.st_mtime_ns) == (
        0o4755,
        1,
        2,
        2 * 10**9 + 5,
    )
    assert stat.S_IMODE(g.st_mode) == 0o666
    assert os.getxattr(tree / "d/g", "security.capability") == CAPABILITY
    assert (link.st_uid, link.st_mtime_ns) == (9, 3 * 10**9)


CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def test_kinds(tree: Path) -> None:
    lay_out(
        tree,
        device("null", 1, 3),
        device("disk", 8, 1, tar.BLOCK_DEVICE),
        tar_writer.header(entry("fifo", tar.FIFO, mode=0o666)),
        file("a", b"same"),
        hard_link("b", "./a"),
        file("deep/er/file", b"x"),
    )
    assert os.stat(tree / "null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK(os.stat(tree / "disk").st_mode)
    assert stat.S_IMODE(os.stat(tree / "fifo").st_mode) == 0o666
    assert os.stat(tree / "a").st_ino == os.stat(tree / "b").st_ino
    assert stat.S_IMODE(os.stat(tree / "deep").st_mode) == 0o755


def test_later_entries_take_the_place_of_earlier_ones(tree: Path) -> None:
    lay_out(
        tree,
        file("a", b"1"),
        file("a", b"22"),
        directory("b"),
        file("b/x"),
        file("b", b"now a file"),
        file("c"),
        directory("c"),
        file("c/y"),
        symlink("l", "c"),
        directory("l"),
        directory("kept"),
        file("kept/z"),
        directory("kept", mode=0o700),
        symlink("s", "one"),
        symlink("s", "two"),
    )
    assert (tree / "a").read_bytes() == b"22"
    assert (tree / "b").read_bytes() == b"now a file"
    assert (tree / "c/y").exists()
    assert not (tree / "l").is_symlink()
    assert (tree / "kept/z").exists() and stat.S_IMODE((tree / "kept").stat().st_mode) == 0o700
    assert os.readlink(tree / "s") == "two"


def test_whiteouts(tree: Path) -> None:
    lay_out(
        tree,
        file(".wh.gone", b""),
        directory("d"),
        file("d/.wh..wh..opq", b""),
        file("d/new"),
        file(".wh..wh.plnk", b""),
        file("in/.wh.side", b""),
        file(".wh.again", b""),
        directory("again"),
        file(".wh.file", b""),
        file("file", b"new"),
        directory("first"),
        file(".wh.first", b""),
    )
    assert is_whiteout(tree / "gone") and is_whiteout(tree / "in/side")
    assert is_opaque(str(tree / "d")) and (tree / "d/new").exists()
    assert is_opaque(str(tree / "again")) and is_opaque(str(tree / "first"))
    assert (tree / "file").read_bytes() == b"new"
    names = {path.name for path in tree.rglob("*")}
    assert not any(name.startswith(".wh.") for name in names)


def test_opaque_root(tree: Path) -> None:
    lay_out(tree, file(".wh..wh..opq", b""))
    assert is_opaque(str(tree))


def test_an_image_cannot_set_overlayfs_attributes(tree: Path) -> None:
    """trusted.overlay.redirect would let it show other directories of its lower layers."""
    attributes = {b"trusted.overlay.redirect": b"/etc", b"user.overlay.opaque": b"y", OPAQUE: b"y"}
    lay_out(tree, directory("d", xattrs=attributes), file("f", xattrs=attributes))
    assert os.listxattr(tree / "d") == [] and os.listxattr(tree / "f") == []


def test_sparse_files_stay_sparse(tree: Path) -> None:
    body = b"1\n10000000\n5\n".ljust(512, b"\0") + b"hello"
    records = b"".join(
        tar_writer._record(key, value)
        for key, value in (
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"holes"),
            (b"GNU.sparse.realsize", b"20000000"),
        )
    )
    extended = tar_writer._ustar(entry("x", tar.PAX_HEADER, size=len(records)), tar.PAX_HEADER)
    member = extended + records + tar_writer.padding(len(records)) + file("ignored", body)
    assert lay_out(tree, member) == 20_000_000
    found = os.stat(tree / "holes")
    assert found.st_size == 20_000_000 and found.st_blocks < 100
    with open(tree / "holes", "rb") as holes:
        holes.seek(10_000_000)
        assert holes.read(6) == b"hello\0"


def test_many_directories_do_not_exhaust_descriptors(tree: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    lay_out(tree, *(file(f"d{number}/f") for number in range(700)), hard_link("x", "d0/f"))
    assert len(os.listdir("/proc/self/fd")) <= before


# -- Hostile archives --------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What an archive must not touch; compared after each case."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"secret")
    (path / "dir").mkdir()
    return path


def picture(path: Path) -> list[tuple[str, int, int, int, bytes]]:
    return [
        (
            str(item),
            (found := item.lstat()).st_mode,
            found.st_uid,
            found.st_nlink,
            item.read_bytes() if item.is_file() else b"",
        )
        for item in sorted([path, *path.rglob("*")])
    ]


def hostile(outside: str) -> dict[str, list[bytes]]:
    up = "../" * 12 + outside.lstrip("/")
    return {
        "dot-dot": [file("../outside/new")],
        "dot-dot inside": [directory("a"), file("a/../../outside/new")],
        "dot-dot far": [file(up + "/new")],
        "absolute": [file(f"{outside}/new")],
        "absolute dot-dot": [file("/../outside/new")],
        "through absolute link": [symlink("l", outside), file("l/new")],
        "through relative link": [symlink("l", "../outside"), file("l/new")],
        "through far link": [symlink("l", up), file("l/new")],
        "link through link": [symlink("a", "b"), symlink("b", outside), file("a/new")],
        "link in a linked directory": [
            directory("d"),
            symlink("d/up", ".."),
            symlink("d/up2", "up/.."),
            file("d/up2/outside/new"),
        ],
        "write to linked file": [symlink("l", f"{outside}/secret"), file("l", b"changed")],
        "hard link out": [hard_link("h", f"{outside}/secret"), file("h", b"changed")],
        "hard link dot-dot": [hard_link("h", "../outside/secret")],
        "hard link through link": [symlink("l", outside), hard_link("h", "l/secret")],
        "hard link to link": [
            symlink("l", f"{outside}/secret"),
            hard_link("h", "l"),
            file("h", b"x"),
        ],
        "directory over link": [symlink("l", f"{outside}/dir"), directory("l", mode=0o777, uid=99)],
        "directory replaced by link": [
            directory("d"),
            file("d/a"),
            symlink("d", outside),
            file("d/new"),
        ],
        "mode through link": [symlink("l", outside), directory("l/dir", mode=0o777)],
        "device through link": [symlink("l", outside), device("l/null", 1, 3)],
        "whiteout through link": [symlink("l", outside), file("l/.wh.secret", b"")],
        "opaque through link": [symlink("l", outside), file("l/.wh..wh..opq", b"")],
        "whiteout of dot-dot": [file(".wh...", b"")],
        "whiteout of dot": [file(".wh..", b"")],
        "whiteout of nothing": [file(".wh.", b"")],
        "magic link": [symlink("l", "/proc/self/root" + outside), file("l/new")],
        "attribute through link": [symlink("l", f"{outside}/secret", xattrs={b"user.x": b"1"})],
        "owner through link": [symlink("l", f"{outside}/secret", uid=99, gid=99)],
        "root is a link": [symlink(".", outside), file("new")],
        "root is a file": [file("./", b"x"), file("/", b"x")],
        "link loop": [symlink("a", "b"), symlink("b", "a"), file("a/x")],
        "very long name": [file("x" * 5000)],
        "very deep": [file("d/" * 2100 + "f")],
        "NUL in name": [file("a\0b")],
    }


@pytest.mark.parametrize("case", hostile("/x"))
def test_hostile_archives_touch_nothing_outside(tree: Path, outside: Path, case: str) -> None:
    before = picture(outside)
    around = sorted(os.listdir(tree.parent))
    try:
        lay_out(tree, *hostile(str(outside))[case])
    except (BadLayer, tar.BadArchive):
        pass
    assert picture(outside) == before
    assert sorted(os.listdir(tree.parent)) == around


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("dot-dot", r'layer entry "../outside/new" is outside of the root'),
        ("hard link out", os.strerror(errno.ENOENT)),
        ("link loop", 'layer entry "a/x"'),
        ("whiteout of dot-dot", "invalid whiteout"),
    ],
)
def test_refusals_name_the_entry(tree: Path, case: str, message: str) -> None:
    with pytest.raises(BadLayer, match=message):
        lay_out(tree, *hostile("/nowhere")[case])


@pytest.mark.parametrize(
    "member",
    [
        file("x", uid=1 << 40),
        device("x", -1, 0),
        file("x", xattrs={b"user.a\0b": b""}),
    ],
)
def test_values_that_no_call_takes(tree: Path, member: bytes) -> None:
    with pytest.raises(BadLayer, match='layer entry "x": '):
        lay_out(tree, member)


def test_links_inside_the_tree_work(tree: Path) -> None:
    """What real images have: /lib → usr/lib, and absolute links that mean the image's own root."""
    lay_out(
        tree,
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("lib64", "/usr/lib"),
        file("lib/one"),
        file("lib64/two"),
        hard_link("lib64/three", "/lib/one"),
    )
    assert sorted(os.listdir(tree / "usr/lib")) == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./", ""),
        ("/", ""),
        ("a/./b", "a/b"),
        ("a//b/", "a/b"),
        ("a/../b", "b"),
        ("..a/.b", "..a/.b"),
    ],
)
def test_clean(name: str, path: str) -> None:
    assert clean(name.encode()) == path.encode()


def test_set_group_id_directories(tree: Path) -> None:
    """What the kernel makes in one gets its group, directories the bit too; an archive says otherwise."""
    lay_out(
        tree,
        directory("d", mode=0o2775, gid=8),
        file("d/f", b"x"),
        directory("d/sub"),
        file("d/sub/g", b"x"),
        symlink("d/l", "f"),
        file("d/left/out", b"x"),
    )
    for name, mode in (("f", 0o644), ("sub", 0o755), ("sub/g", 0o644), ("left", 0o755)):
        found = (tree / "d" / name).stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (0, mode), name
    assert (tree / "d/l").lstat().st_gid == 0
    assert stat.S_IMODE((tree / "d").stat().st_mode) == 0o2775
