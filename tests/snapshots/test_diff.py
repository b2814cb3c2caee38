"""What a container changed, read from its layers: the list, the layer's tar, the whole tree's tar."""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument, NotFound, RuntimeFailure
from sampan.oci import tar
from sampan.oci.tar import Entry, TarReader
from sampan.oci.tar_writer import END
from sampan.snapshots.diff import ChangeKind, changes, layer_tar, tree_tar
from sampan.snapshots.overlay import HOST, SCRATCH, Snapshotter
from support import tars

pytestmark = pytest.mark.root

BASE = tars.archive(
    [
        tars.directory("bin"),
        tars.file("bin/sh", b"#!"),
        tars.directory("etc", mtime_ns=1_500_000_000_123_456_789),
        tars.file("etc/group", b"g"),
        tars.file("etc/passwd", b"p"),
        tars.directory("home"),
        tars.directory("home/user"),
        tars.file("home/user/old", b"old"),
        tars.file("home/user/kept", b"kept"),
        tars.directory("root"),
        tars.directory("usr"),
        tars.directory("usr/sbin"),
        tars.symlink("usr/link", "sbin"),
    ]
)


class Box:
    """One container's snapshot, mounted as its runtime would."""

    def __init__(self, directory: Path) -> None:
        self.snapshots = Snapshotter(str(directory / "root"))
        self.target = directory / "mnt"
        self.target.mkdir()
        self.mounted = False

    def mount(self, key: str, parent: str) -> Path:
        (mount,) = self.snapshots.prepare(key, parent)
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", ",".join(mount.options), self.target],
            check=True,
        )
        self.mounted = True
        return self.target

    def unmount(self) -> None:
        if self.mounted:
            subprocess.run(["umount", self.target], check=True)
            self.mounted = False

    def changes(self, key: str) -> list[str]:
        return [f"{'CAD'[change.kind]} {change.path}" for change in self.snapshots.changes(key)]

    def layer(self, key: str) -> bytes:
        return b"".join(self.snapshots.layer_tar(key))

    def tree(self, key: str) -> bytes:
        return b"".join(self.snapshots.tree_tar(key))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.unmount()
    left = made.snapshots.keys()
    for key in left:
        made.snapshots.remove(key)  # what hides the engine in `host` stays while one stands on it
    made.snapshots.close()


@pytest.fixture
def base(box: Box) -> str:
    return box.snapshots.extract(io.BytesIO(BASE).read).chain


def names(data: bytes) -> list[str]:
    return [entry.text_name for entry in TarReader(io.BytesIO(data).read)]


def described(data: bytes) -> list[tuple[object, ...]]:
    """Everything that a tar says, but for the time of the root directory."""
    reader = TarReader(io.BytesIO(data).read)
    found: list[tuple[object, ...]] = []
    for entry in reader:
        content = hashlib.sha256(b"".join(bytes(piece) for piece in reader.data())).hexdigest()
        fields = [getattr(entry, name) for name in Entry.__slots__ if name != "xattrs"]
        if entry.name == b"./":
            fields.remove(entry.mtime_ns)
        found.append((*fields, tuple(entry.xattrs.items()), content))
    return found


def change_everything(root: Path) -> None:
    """Every kind of change, and some that are none."""
    (root / "new/sub").mkdir(parents=True)
    (root / "new/sub/f").write_text("x")
    os.link(root / "new/sub/f", root / "new/sub/g")
    os.unlink(root / "etc/group")
    with open(root / "etc/passwd", "a") as file:
        file.write("more")
    subprocess.run(["rm", "-rf", root / "home/user"], check=True)
    (root / "home/user").mkdir()
    (root / "home/user/kept").write_text("another")
    subprocess.run(["rm", "-rf", root / "usr/sbin"], check=True)
    os.chmod(root / "root", 0o700)
    os.chmod(root / "root", 0o755)
    os.chmod(root / "bin/sh", 0o4755)
    os.symlink("target", root / "link")
    os.mknod(root / "null", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mkfifo(root / "fifo", 0o600)
    os.rename(root / "usr/link", root / "usr/renamed")
    (root / "gone").write_text("")
    os.unlink(root / "gone")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))


CHANGES = [
    *("C /bin", "C /bin/sh", "C /etc", "D /etc/group", "C /etc/passwd", "A /fifo"),
    *("C /home", "C /home/user", "C /home/user/kept", "D /home/user/old", "A /link"),
    *("A /new", "A /new/sub", "A /new/sub/f", "A /new/sub/g", "A /null", "A /socket"),
    *("C /usr", "D /usr/link", "A /usr/renamed", "D /usr/sbin"),
]


def test_every_kind_of_change(box: Box, base: str) -> None:
    change_everything(box.mount("k", base))
    assert box.changes("k") == CHANGES
    box.unmount()
    assert box.changes("k") == CHANGES, "mounted or not"


def test_nothing_changed(box: Box, base: str) -> None:
    box.snapshots.prepare("k", base)
    assert box.changes("k") == []
    assert box.layer("k") == END


def test_a_layer_makes_the_same_tree(box: Box, base: str) -> None:
    root = box.mount("k", base)
    change_everything(root)
    os.setxattr(root / "new", "user.colour", b"red\0")
    os.setxattr(
        root / "bin/sh",
        "security.capability",
        bytes.fromhex("0100000200040000000000000000000000000000"),
    )
    os.chown(root / "link", 1000, 2_500_000, follow_symlinks=False)
    os.utime(root / "fifo", ns=(1, 1_600_000_000_987_654_321))
    os.utime(root / "new/sub", ns=(1, -5_000_000_001))
    (root / os.fsdecode(b"caf\xe9")).write_bytes(b"\xff")
    (root / ("n" * 250)).mkdir()
    (root / ("n" * 250) / ("m" * 250)).write_text("long")
    box.unmount()
    layer = box.snapshots.extract(io.BytesIO(box.layer("k")).read, base)  # type: ignore[arg-type]
    box.snapshots.prepare("again", layer.chain)
    assert described(box.tree("again")) == described(box.tree("k"))
    assert box.layer("again") == END and box.changes("again") == []


def test_whiteouts_and_opaque_directories(box: Box, base: str) -> None:
    change_everything(box.mount("k", base))
    found = names(box.layer("k"))
    marks = [name for name in found if ".wh." in name]
    assert marks == ["etc/.wh.group", "home/user/.wh..wh..opq", "usr/.wh.link", "usr/.wh.sbin"]
    assert "socket" not in found
    assert found.index("home/user/") < found.index("home/user/.wh..wh..opq")


def test_names_that_look_like_whiteouts(box: Box, base: str) -> None:
    """A container's own `.wh.passwd` hides no passwd in the image that is made of it."""
    root = box.mount("k", base)
    (root / "etc/.wh.passwd").write_text("x")
    (root / "etc/.wh..wh..opq").write_text("x")
    (root / ".wh..").mkdir()
    (root / ".wh../inside").write_text("x")
    (root / "etc/new").write_text("n")
    box.unmount()
    assert names(box.layer("k")) == ["etc/", "etc/new"]
    layer = box.snapshots.extract(io.BytesIO(box.layer("k")).read, base)  # type: ignore[arg-type]
    box.snapshots.prepare("again", layer.chain)
    assert {"etc/passwd", "etc/group", "etc/new"} <= set(names(box.tree("again")))


def test_new_directories_are_not_opaque(box: Box, base: str) -> None:
    """Some kernels mark a directory opaque when they make one, so that look-ups end there."""
    (box.mount("k", base) / "new").mkdir()
    os.setxattr(f"{box.snapshots.upper('k')}/new", "trusted.overlay.opaque", b"y")
    assert names(box.layer("k")) == ["new/"]
    assert box.changes("k") == ["A /new"]


def test_a_directory_in_the_place_of_a_file_and_back(box: Box, base: str) -> None:
    root = box.mount("k", base)
    os.unlink(root / "bin/sh")
    (root / "bin/sh").mkdir()
    (root / "bin/sh/inside").write_text("")
    subprocess.run(["rm", "-rf", root / "home/user"], check=True)
    (root / "home/user").write_text("file")
    assert box.changes("k") == [
        *("C /bin", "C /bin/sh", "A /bin/sh/inside"),
        *("C /home", "C /home/user"),
    ]
    box.unmount()
    layer = box.snapshots.extract(io.BytesIO(box.layer("k")).read, base)  # type: ignore[arg-type]
    box.snapshots.prepare("again", layer.chain)
    assert described(box.tree("again")) == described(box.tree("k"))


def test_the_same_content_gives_the_same_layer(box: Box, base: str) -> None:
    for key in ("a", "b"):
        root = box.mount(key, base)
        order = ("one", "two", "three") if key == "a" else ("three", "two", "one")
        for name in order:
            (root / name).write_text(name)
            os.setxattr(root / name, f"user.{order[0]}", b"1")
            for colour in order:
                os.setxattr(root / name, f"user.{colour}", b"1")
            os.utime(root / name, ns=(0, 10**18))
        box.unmount()
    assert box.layer("a") == box.layer("b") == box.layer("a")


def test_the_root_s_own_attributes(box: Box, base: str) -> None:
    root = box.mount("k", base)
    os.chmod(root, 0o711)
    os.chown(root, 5, 6)
    box.unmount()
    reader = TarReader(io.BytesIO(box.layer("k")).read)
    (entry,) = list(reader)
    assert (entry.name, entry.mode, entry.uid, entry.gid) == (b"./", 0o711, 5, 6)
    layer = box.snapshots.extract(io.BytesIO(box.layer("k")).read, base)  # type: ignore[arg-type]
    root = box.mount("again", layer.chain)
    (root / "x").write_text("")
    assert stat.S_IMODE(os.stat(root).st_mode) == 0o711
    assert names(box.layer("again")) == ["./", "x"], "the next layer keeps them"


def test_holes_are_zeros_that_nobody_reads(box: Box) -> None:
    path = f"{box.mount('k', SCRATCH)}/sparse"
    with open(path, "wb") as file:
        file.seek(5 << 20)
        file.write(b"data")
        file.truncate(9 << 20)
    reader = TarReader(io.BytesIO(box.layer("k")).read)
    (entry,) = [entry for entry in [reader.next()] if entry is not None]
    content = b"".join(bytes(piece) for piece in reader.data())
    assert entry.size == len(content) == 9 << 20
    assert content.strip(b"\0") == b"data" and content[5 << 20 : (5 << 20) + 4] == b"data"


def test_mount_points_are_not_the_image_s(box: Box, base: str) -> None:
    """A container sees them; a layer does not have them, nor that one was removed."""
    root = box.mount("k", base)
    assert (root / ".dockerenv").exists() and (root / "proc").is_dir()
    os.unlink(root / ".dockerenv")
    assert box.changes("k") == ["D /.dockerenv"]
    assert ".wh..dockerenv" not in names(box.layer("k"))
    assert {"proc/", "etc/hosts"} <= set(names(box.tree("k")))


def test_links_lead_nowhere(box: Box, base: str) -> None:
    """Links that point out of the container are entries, not ways."""
    root = box.mount("k", base)
    os.symlink("/etc/shadow", root / "shadow")
    os.symlink("/", root / "out")
    reader = TarReader(io.BytesIO(box.layer("k")).read)
    assert {entry.name: entry.link for entry in reader} == {b"out": b"/", b"shadow": b"/etc/shadow"}


def test_a_directory_that_becomes_a_link_meanwhile(box: Box, base: str, tmp_path: Path) -> None:
    """Between its being listed and entered: nothing behind the link is read."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("secret")
    root = box.mount("k", base)
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "b/c").write_text("")
    big = root / "a/big"
    big.write_bytes(bytes(3 << 20))
    os.utime(big, ns=(0, 0))
    pieces = box.snapshots.layer_tar("k")
    first = next(pieces)  # `a` is under way, `b` is not
    os.rename(root / "b", root / "was-b")
    os.symlink(tmp_path / "secret", root / "b")
    found = names(first + b"".join(pieces))
    assert "b/file" not in found and "b/c" not in found


def test_a_device_in_the_place_of_a_file_is_not_opened(box: Box, base: str) -> None:
    root = box.mount("k", base)
    (root / "a").write_bytes(bytes(3 << 20))
    (root / "b").write_text("file")
    pieces = box.snapshots.layer_tar("k")
    first = next(pieces)
    os.unlink(root / "b")
    os.mknod(root / "b", stat.S_IFIFO | 0o600)  # an open without O_NONBLOCK would wait for ever
    entries = list(TarReader(io.BytesIO(first + b"".join(pieces)).read))
    assert [(entry.name, entry.kind) for entry in entries] == [(b"a", tar.FILE), (b"b", tar.FIFO)]


def test_a_file_that_shrinks_is_filled_up(box: Box, base: str) -> None:
    root = box.mount("k", base)
    (root / "a").write_bytes(b"x" * (3 << 20))
    pieces = box.snapshots.layer_tar("k")
    first = next(pieces)
    os.truncate(root / "a", 10)
    data = first + b"".join(pieces)
    (entry,) = list(TarReader(io.BytesIO(data).read))
    assert entry.size == 3 << 20 and len(data) % 512 == 0


def test_a_tree_deeper_than_descriptors(box: Box, base: str) -> None:
    path = box.mount("k", base)
    for _ in range(700):
        path = path / "dd"
        path.mkdir()
    soft_before = len(os.listdir("/proc/self/fd"))
    most = soft_before
    for _ in box.snapshots.layer_tar("k"):
        most = max(most, len(os.listdir("/proc/self/fd")))
    assert len(box.changes("k")) == 700
    assert most < soft_before + 400
    assert len(os.listdir("/proc/self/fd")) <= soft_before


def test_a_path_that_no_layer_can_have(box: Box, base: str) -> None:
    box.mount("k", base)
    fd = os.open(box.target, os.O_RDONLY)
    name = "n" * 200
    for _ in range(21):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    for read in (box.layer, box.tree, box.changes):
        with pytest.raises(RuntimeFailure, match="file name too long"):
            read("k")


def test_layers_on_layers(box: Box, base: str) -> None:
    """Whiteouts and opaque directories of lower layers hide what is below them."""
    second = box.snapshots.extract(
        io.BytesIO(
            tars.archive(
                [
                    tars.file("etc/.wh.group", b""),
                    tars.directory("home/user"),
                    tars.file("home/user/.wh..wh..opq", b""),
                    tars.file("home/user/new", b"n"),
                    tars.file("usr/.wh.sbin", b""),
                ]
            )
        ).read,
        base,  # type: ignore[arg-type]
    )
    root = box.mount("k", second.chain)
    found = set(names(box.tree("k")))
    assert "home/user/new" in found and not found & {"home/user/old", "etc/group", "usr/sbin/"}
    (root / "etc/group").write_text("again")
    (root / "usr/sbin").mkdir()
    os.unlink(root / "home/user/new")
    assert box.changes("k") == [
        *("C /etc", "A /etc/group", "C /home", "C /home/user", "D /home/user/new"),
        *("C /usr", "A /usr/sbin"),
    ]
    assert names(box.layer("k")) == [
        *("etc/", "etc/group", "home/", "home/user/", "home/user/.wh.new", "usr/", "usr/sbin/"),
    ]


def test_a_tree_goes_through_import_unchanged(box: Box, base: str) -> None:
    change_everything(box.mount("k", base))
    box.unmount()
    exported = box.tree("k")
    flat = box.snapshots.extract(io.BytesIO(exported).read)
    box.snapshots.prepare("flat", flat.chain)
    again = box.tree("flat")
    assert again[1536:] == exported[1536:] or described(again) == described(exported)


def test_the_host_s_tree_stops_at_mounts(box: Box) -> None:
    box.snapshots.prepare("k", HOST)
    top = set()
    for entry in TarReader(_reader(box.snapshots.tree_tar("k"))):
        name = entry.text_name
        assert not name.startswith(("proc/1", "sys/kernel", "run/", "tmp/")) or name in (
            "run/",
            "tmp/",
        )
        top.add(name.split("/")[0])
        if len(top) > 4:
            break
    with pytest.raises(InvalidArgument, match="host image"):
        box.snapshots.layer_tar("k")


def test_unknown_snapshot(box: Box) -> None:
    with pytest.raises(NotFound):
        box.snapshots.changes("nope")


def test_numbers_are_docker_s() -> None:
    assert [int(kind) for kind in ChangeKind] == [0, 1, 2]


def test_closing_in_the_middle_leaves_no_descriptor(box: Box, base: str) -> None:
    (box.mount("k", base) / "big").write_bytes(bytes(4 << 20))
    before = len(os.listdir("/proc/self/fd"))
    for make in (box.snapshots.layer_tar, box.snapshots.tree_tar):
        pieces = make("k")
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) <= before


def test_without_lower_layers(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/f").write_text("x")
    upper = str(tmp_path / "upper")
    assert changes(upper, []) == [("/f", ChangeKind.ADDED)]
    assert names(b"".join(layer_tar(upper, []))) == ["f"]
    assert names(b"".join(tree_tar(upper, []))) == ["./", "f"]


def _reader(pieces: Iterator[bytes]) -> tar.Read:
    rest = b""

    def read(size: int) -> bytes:
        nonlocal rest
        rest = rest or next(pieces, b"")
        piece, rest = rest[:size], rest[size:]
        return piece

    return read


@pytest.mark.parametrize("seed", range(6))
def test_random_changes(box: Box, base: str, seed: int) -> None:
    """Three rounds on top of each other: the layer's tree is the container's, the list is what a
    comparison of the mounted trees finds."""
    chance = random.Random(seed)
    parent: str | None = base
    for number in range(3):
        key = f"k{number}"
        assert parent is not None
        box.snapshots.prepare(f"before-{key}", parent)
        before = entries(box.tree(f"before-{key}"))
        root = box.mount(key, parent)
        for _ in range(40):
            change_something(root, chance)
        box.unmount()
        after = entries(box.tree(key))
        listed = {(change.path, int(change.kind)) for change in box.snapshots.changes(key)}
        assert listed == expected_changes(before, after)
        layer = box.snapshots.extract(_reader(box.snapshots.layer_tar(key)), parent)  # type: ignore[arg-type]
        parent = layer.chain
        box.snapshots.prepare(f"after-{key}", parent)
        assert described(box.tree(f"after-{key}")) == described(box.tree(key))
        assert box.layer(f"after-{key}") == END


GIVEN = frozenset((".dockerenv", "dev", "etc", "proc", "sys"))
"""Every container has them, whatever the image has."""


def change_something(root: Path, chance: random.Random) -> None:
    found = [
        Path(base) / name
        for top in sorted(set(os.listdir(root)) - GIVEN)
        for base, folders, files in os.walk(root / top)
        for name in (*folders, *files, ".")
    ] or [root / "bin"]
    folders = [root, *(path for path in found if path.is_dir() and not path.is_symlink())]
    target = Path(os.path.normpath(chance.choice(found)))
    if not os.path.lexists(target):
        return
    new = chance.choice(folders) / chance.choice("abcdef")
    match chance.randrange(9):
        case 0 | 1 if not os.path.lexists(new):
            new.mkdir()
        case 2 | 3 if not os.path.lexists(new):
            new.write_text(str(chance.random()))
        case 4 if not os.path.lexists(new):
            os.symlink("x", new)
        case 5:
            subprocess.run(["rm", "-rf", target], check=True)
        case 6 if not target.is_symlink():
            os.chmod(target, chance.choice((0o700, 0o755, 0o644)))
        case 7 if target.is_file() and not target.is_symlink():
            target.write_text(str(chance.random()))
        case 8 if not os.path.lexists(new):
            subprocess.run(["cp", "-a", target, new], check=False, capture_output=True)


def entries(data: bytes) -> dict[str, tuple[object, ...]]:
    """What counts as a difference, by absolute path."""
    found: dict[str, tuple[object, ...]] = {}
    for entry in TarReader(io.BytesIO(data).read):
        path = "/" + entry.text_name.strip("./" if entry.name == b"./" else "/")
        times = () if entry.kind == tar.DIRECTORY else (entry.mtime_ns, entry.size)
        found[path] = (entry.kind, entry.mode, entry.uid, entry.gid, *times)
    return found


def expected_changes(
    before: dict[str, tuple[object, ...]], after: dict[str, tuple[object, ...]]
) -> set[tuple[str, int]]:
    """dockerd's rule: what is gone with its directory is not listed, what is above a change is."""
    found = {(path, 1) for path in after if path not in before}
    found |= {(p, 0) for p in after if p in before and before[p] != after[p] and p != "/"}
    for path in before:
        above = os.path.dirname(path)
        if (
            path not in after
            and after.get(above, before[above])[0] == tar.DIRECTORY
            and above in after
        ):
            found.add((path, 2))
    for path, _ in list(found):
        while (path := os.path.dirname(path)) != "/":
            if (path, 1) not in found:
                found.add((path, 0))
    return found
