"""Snapshots: prepared, mounted in a fresh mount namespace, removed, found again after a restart."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure
from sampan.linux.mounts import Mount
from sampan.oci.digest import ChainID, DiffID
from sampan.snapshots.overlay import HOST, SCRATCH, Snapshotter
from support.tars import archive, directory, file, reader, symlink

pytestmark = [pytest.mark.root, pytest.mark.vm]


@pytest.fixture
def open_snapshots(tmp_path: Path) -> Iterator[Callable[[], Snapshotter]]:
    opened = []

    def open_one() -> Snapshotter:
        opened.append(Snapshotter(str(tmp_path / "root"), hidden=[str(tmp_path / "run")]))
        return opened[-1]

    (tmp_path / "root").mkdir()
    (tmp_path / "run").mkdir()
    yield open_one
    for snapshots in opened:
        for active in sorted(snapshots.keys()):
            snapshots.remove(active)
        snapshots.close()


@pytest.fixture
def snapshots(open_snapshots: Callable[[], Snapshotter]) -> Snapshotter:
    return open_snapshots()


def inside(mounts: list[Mount], script: str, tmp_path: Path) -> str:
    """Perform the mounts in a mount namespace of their own and run a script in the rootfs."""
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir(exist_ok=True)
    commands = [
        f"mount -t {mount.type} {mount.source} -o '{','.join(mount.options)}' {rootfs}{mount.target}"
        for mount in mounts
    ]
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "\n".join([*commands, f"cd {rootfs}", script])],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def layer(snapshots: Snapshotter, *members: bytes, parent: ChainID | None = None) -> ChainID:
    return snapshots.extract(reader(archive(members)), parent).chain


def until(condition: Callable[[], bool]) -> None:
    """Wait for the janitor thread."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        os.sched_yield()


def test_stack_of_layers_and_an_upper(snapshots: Snapshotter, tmp_path: Path) -> None:
    bottom = layer(snapshots, file("a", b"1"), file("b", b"2"), directory("d"), file("d/old"))
    top = layer(snapshots, file(".wh.a", b""), file("d/.wh..wh..opq", b""), parent=bottom)
    mounts = snapshots.prepare("k", top)
    assert inside(mounts, "cat b; ls d; test ! -e a; echo new > c", tmp_path) == "2"
    assert Path(snapshots.upper("k"), "c").read_text() == "new\n"
    assert snapshots.usage_bytes("k") == 4
    assert inside(snapshots.mounts("k"), "cat c", tmp_path) == "new\n"


def test_mount_points_are_there_without_a_trace_in_the_upper(
    snapshots: Snapshotter, tmp_path: Path
) -> None:
    parent = layer(snapshots, file("bin/sh"), file("etc/hosts", b"own"))
    mounts = snapshots.prepare("k", parent)
    script = "for d in dev proc sys; do test -d $d; done; test -f etc/resolv.conf; cat etc/hosts"
    assert inside(mounts, script, tmp_path) == "own"
    assert os.listdir(snapshots.upper("k")) == []


def test_mount_points_leave_an_images_links_alone(snapshots: Snapshotter, tmp_path: Path) -> None:
    parent = layer(snapshots, directory("real", mode=0o700), symlink("etc", "real"))
    assert inside(snapshots.prepare("k", parent), "readlink etc; ls real", tmp_path) == "real\n"


def test_mount_points_respect_whiteouts_and_modes(snapshots: Snapshotter, tmp_path: Path) -> None:
    bottom = layer(snapshots, directory("etc", mode=0o711), file("etc/hosts", b"old"))
    top = layer(snapshots, file("etc/.wh.hosts", b""), directory("etc", mode=0o711), parent=bottom)
    out = inside(snapshots.prepare("k", top), "stat -c '%a' etc; stat -c %s etc/hosts", tmp_path)
    assert out == "711\n0\n"


def test_root_directory_keeps_the_images_mode_and_owner(
    snapshots: Snapshotter, tmp_path: Path
) -> None:
    parent = layer(snapshots, directory("./", mode=0o1751, uid=5))
    assert inside(snapshots.prepare("k", parent), "stat -c '%a %u' .", tmp_path) == "1751 5\n"


def test_image_without_layers(snapshots: Snapshotter, tmp_path: Path) -> None:
    mounts = snapshots.prepare("k", SCRATCH)
    assert inside(mounts, "ls -A; echo 1 > a; cat a", tmp_path) == "1\n"


def test_host(snapshots: Snapshotter, tmp_path: Path) -> None:
    """The machine's root, changed without consequence; the engine's directories are not seen."""
    mounts = snapshots.prepare("k", HOST)
    probe = f"/var/tmp/sampan-probe-{os.getpid()}"
    script = f"""
        for d in run tmp dev proc sys .{tmp_path}/root; do
            [ ! -d $d ] || [ -z "$(ls -A $d)" ] || {{ echo "$d shows"; exit 1; }}
        done
        stat -c %a tmp
        cmp usr/bin/env /usr/bin/env
        touch .{probe}
        chroot . /bin/sh -c 'echo hello'
    """
    assert inside(mounts, script, tmp_path) == "1777\nhello\n"
    assert not os.path.exists(probe)


def test_host_covers_engine_directories_outside_of_tmp() -> None:
    kind = subprocess.run(["stat", "-fc", "%T", "/"], capture_output=True, text=True).stdout
    if kind.strip() == "overlayfs":
        pytest.skip("the root is an overlay, which cannot hold another one's upper directory")
    root = Path(f"/var/tmp/sampan-test-{os.getpid()}")
    (root / "data").mkdir(parents=True)
    (root / "run").mkdir()
    (root / "seen").touch()
    (root / "run/secret").touch()
    snapshots = Snapshotter(str(root / "data"), hidden=[str(root / "run")])
    try:
        mounts = snapshots.prepare("k", HOST)
        out = inside(mounts, f"ls .{root} .{root}/data .{root}/run", root)
        assert "seen" in out and "secret" not in out and "active" not in out
    finally:
        snapshots.remove("k")
        snapshots.close()
        subprocess.run(["rm", "-rf", root], check=True)


def test_host_without_another_file_system_covers_in_the_upper(
    snapshots: Snapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.snapshots.host._is_elsewhere", lambda path: False)
    mounts = snapshots.prepare("k", HOST)
    assert "lowerdir=/" in mounts[0].options
    assert inside(
        mounts, f"ls -A tmp run; ls -A .{tmp_path}/root 2>/dev/null || true", tmp_path
    ) == ("run:\n\ntmp:\n")


def test_a_foreign_directory_is_not_taken_for_the_host_layer(tmp_path: Path) -> None:
    from sampan.snapshots.host import _own_directory

    path = tmp_path / "planted"
    path.mkdir()
    os.chown(path, 1234, 1234)
    assert not _own_directory(str(path))
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert not _own_directory(str(link))


def test_removed_names_are_free_at_once_and_their_directories_come_back_clean(
    snapshots: Snapshotter, tmp_path: Path
) -> None:
    parent = layer(snapshots, file("a"))
    script = """
        mkdir -p x/y; echo 1 > x/y/z; chown 5:6 .; chmod 700 .; setfattr -n user.x -v 1 . || true
        setfacl -m u:5:r . || true; chattr +i x/y/z || true
    """
    for _ in range(3):
        inside(snapshots.prepare("k", parent), script, tmp_path)
        snapshots.remove("k")
    until(lambda: not os.listdir(f"{snapshots.root}/trash"))
    for number in range(len(snapshots._spares)):
        snapshots.prepare(str(number), parent)
        upper = snapshots.upper(str(number))
        found = os.stat(upper)
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o755, 0, 0)
        assert os.listdir(upper) == [] == os.listxattr(upper)


def test_removing_twice_and_unknown_keys(snapshots: Snapshotter) -> None:
    snapshots.prepare("k", SCRATCH)
    with pytest.raises(Conflict):
        snapshots.prepare("k", SCRATCH)
    snapshots.remove("k")
    snapshots.remove("k")
    for call in (snapshots.mounts, snapshots.upper, snapshots.usage_bytes, snapshots.parent):
        with pytest.raises(NotFound, match="snapshot k does not exist"):
            call("k")
    with pytest.raises(NotFound):
        snapshots.prepare("k", "sha256:" + "0" * 64)
    for key in ("", "../x", "a/b", "."):
        with pytest.raises(InvalidArgument):
            snapshots.prepare(key, SCRATCH)


def test_restart_finds_everything(
    open_snapshots: Callable[[], Snapshotter], tmp_path: Path
) -> None:
    first = open_snapshots()
    parent = layer(first, file("a", b"1"))
    inside(first.prepare("k", parent, volatile=True), "echo 2 > b", tmp_path)
    first.prepare("h", HOST)
    first.close()
    second = open_snapshots()
    assert sorted(second.keys()) == ["h", "k"]
    assert (second.parent("k"), second.parent("h")) == (parent, HOST)
    assert second.layers.get(parent).size == 1
    assert inside(second.mounts("k"), "cat a b", tmp_path) == "12\n"


def test_leftovers_of_a_crash(open_snapshots: Callable[[], Snapshotter], tmp_path: Path) -> None:
    first = open_snapshots()
    first.close()
    root = tmp_path / "root"
    (root / "layers/tmp-1/fs/x").mkdir(parents=True)
    (root / "trash/9/upper/x").mkdir(parents=True)
    (root / "spare/99999").mkdir()
    second = open_snapshots()
    second.prepare("k", SCRATCH)
    second.remove("k")
    assert os.listdir(root / "layers") == []
    until(lambda: not os.listdir(root / "trash"))


def test_layers_are_kept_while_needed(snapshots: Snapshotter) -> None:
    bottom = layer(snapshots, file("a"))
    top = layer(snapshots, file("b"), parent=bottom)
    other = layer(snapshots, file("c"))
    snapshots.prepare("k", bottom)
    assert [layer.chain for layer in snapshots.unneeded(top, lambda _: False)] == [top]
    assert {layer.chain for layer in snapshots.collect([])} == {top, other}
    snapshots.remove("k")
    assert snapshots.collect([bottom]) == []
    assert [layer.chain for layer in snapshots.collect([])] == [bottom]
    until(lambda: not os.listdir(f"{snapshots.root}/trash"))
    assert os.listdir(f"{snapshots.root}/layers") == []


def test_the_same_layer_is_laid_out_once(snapshots: Snapshotter) -> None:
    first = snapshots.extract(reader(archive([file("a")])))
    again = snapshots.extract(reader(b"not even read"), None, first.diff_id)
    assert again is first
    assert snapshots.extract(reader(archive([file("a")]))).chain == first.chain


def test_wrong_diff_id_and_broken_tars_leave_nothing(snapshots: Snapshotter) -> None:
    wrong = DiffID("sha256:" + "0" * 64)
    with pytest.raises(InvalidArgument, match="invalid diffID for layer"):
        snapshots.extract(reader(archive([file("a")])), None, wrong)
    with pytest.raises(InvalidArgument):
        snapshots.extract(reader(archive([file("a"), file("../b")])))
    assert os.listdir(f"{snapshots.root}/layers") == []


def test_deep_trees_are_removed(snapshots: Snapshotter) -> None:
    """A container can nest directories deeper than any path or recursion."""
    snapshots.prepare("k", SCRATCH)
    descend = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"
    subprocess.run(["python3", "-c", descend], cwd=snapshots.upper("k"), check=True)
    snapshots.remove("k")
    until(lambda: not os.listdir(f"{snapshots.root}/trash"))


def test_hundred_layers_fit_and_too_many_are_refused(
    snapshots: Snapshotter, tmp_path: Path
) -> None:
    chain = None
    depth = 0
    with pytest.raises(RuntimeFailure, match="do not fit"):
        while depth < 500:
            depth += 1
            chain = layer(snapshots, file(f"f{depth}"), parent=chain)
            if depth % 8 == 0:
                key = str(depth)
                out = inside(snapshots.prepare(key, chain), "ls | grep -c ^f", tmp_path)
                assert out == f"{depth}\n"
                snapshots.remove(key)
    assert depth > 4096 // (len(f"{snapshots.root}/l/") + 4) * 0.7


def test_roots_that_overlayfs_cannot_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="comma, colon or backslash"):
        Snapshotter(str(tmp_path / "a,b"))


def test_prepare_and_remove_walk_nothing(snapshots: Snapshotter) -> None:
    """On the path of every start and end: both take far below a millisecond, of this thread's own time."""
    parent = layer(snapshots, file("a"))
    snapshots.prepare("warm", parent)
    until(lambda: len(snapshots._spares) >= 31)
    samples = []
    for number in range(200):
        begin = time.thread_time_ns()
        snapshots.prepare(str(number % 50), parent)
        snapshots.remove(str(number % 50))
        samples.append(time.thread_time_ns() - begin)
        until(lambda: bool(snapshots._spares))
    assert sorted(samples)[100] < 1_000_000
