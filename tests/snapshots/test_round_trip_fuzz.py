"""Whatever a container does to its tree, the layer made of it makes the same tree of the image again,
on top of layers that came about in the same way (SAMPAN_FUZZ=1000 for a long run)."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.oci.tar import Entry, TarReader
from sampan.oci.tar_writer import END
from sampan.snapshots.overlay import Snapshotter
from support import tars
from support.fuzzing import fuzzed

pytestmark = pytest.mark.root

BASE = tars.archive(
    [
        tars.directory("a", mode=0o2775, gid=8, mtime_ns=5),
        tars.file("a/a", b"one"),
        tars.directory("a/b"),
        tars.file("a/b/c", b"two", mode=0o4755),
        tars.hard_link("a/same", "a/a"),
        tars.directory("b"),
        tars.symlink("b/a", "../a"),
        tars.symlink("c", "b"),
        tars.file("d", b"three", xattrs={b"user.x": b"1"}),
    ]
)
_names = st.sampled_from(["a", "b", "c", "d", "same", "new"])
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)


def _write(root: Path, path: str, other: str, number: int) -> None:
    with open(root / path, "wb") as file:
        file.write(b"x" * number)


def _remove(root: Path, path: str, other: str, number: int) -> None:
    if (root / path).is_dir() and not (root / path).is_symlink():
        shutil.rmtree(root / path)
    else:
        os.unlink(root / path)


def _rename(root: Path, path: str, other: str, number: int) -> None:
    os.rename(root / path, root / other)


def _anew(root: Path, path: str, other: str, number: int) -> None:
    """A directory in the place of another: opaque."""
    shutil.rmtree(root / path)
    os.mkdir(root / path, 0o700 + number % 8)


def _attributes(root: Path, path: str, other: str, number: int) -> None:
    if not stat.S_ISLNK(os.lstat(root / path).st_mode):
        os.chmod(root / path, number % 0o10000)
        os.setxattr(root / path, "user.n", str(number).encode())
    os.chown(root / path, number, 7, follow_symlinks=False)
    os.utime(root / path, ns=(0, number * 1_000_000_007 - 10**12), follow_symlinks=False)


def _node(root: Path, path: str, other: str, number: int) -> None:
    kind = [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK][number % 3]
    os.mknod(root / path, kind | 0o600, os.makedev(1, 3) if kind != stat.S_IFIFO else 0)


CHANGES: list[Callable[[Path, str, str, int], None]] = [
    _write, _remove, _remove, _rename, _anew, _attributes, _node,
    lambda root, path, other, number: os.mkdir(root / path),
    lambda root, path, other, number: os.symlink(other, root / path),
    lambda root, path, other, number: os.link(root / other, root / path, follow_symlinks=False),
]  # fmt: skip
_changes = st.tuples(st.integers(0, len(CHANGES) - 1), _paths, _paths, st.integers(0, 5000))


def changed(snapshots: Snapshotter, key: str, parent: str, target: Path, todo: list[tuple[int, str, str, int]]) -> None:  # fmt: skip
    """A container's snapshot in which changes were made, as far as they can be."""
    (mount,) = snapshots.prepare(key, parent)
    options = ",".join(mount.options)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, target], check=True)
    try:
        for number, path, other, value in todo:
            try:
                CHANGES[number](target, path, other, value)
            except OSError:
                continue  # there is no such thing, or another one is in the way
    finally:
        subprocess.run(["umount", target], check=True)


def described(data: bytes) -> list[tuple[object, ...]]:
    """Everything that a tar says, but for the time of the root directory."""
    reader = TarReader(io.BytesIO(data).read)
    found: list[tuple[object, ...]] = []
    for entry in reader:
        content = hashlib.sha256(b"".join(bytes(piece) for piece in reader.data())).hexdigest()
        skipped = ("xattrs", "mtime_ns") if entry.name == b"./" else ("xattrs",)
        fields = [getattr(entry, name) for name in Entry.__slots__ if name not in skipped]
        found.append((*fields, tuple(entry.xattrs.items()), content))
    return found


@fuzzed(12)
@given(st.lists(st.lists(_changes, min_size=1, max_size=10), min_size=1, max_size=3))
def test_layers_upon_layers(tmp_path: Path, stages: list[list[tuple[int, str, str, int]]]) -> None:
    target = tmp_path / "target"
    target.mkdir(exist_ok=True)
    snapshots = Snapshotter(str(tmp_path / "root"))
    try:
        parent = snapshots.extract(io.BytesIO(BASE).read).chain
        for number, todo in enumerate(stages):
            key, again = f"k{number}", f"again{number}"
            changed(snapshots, key, parent, target, todo)
            tree = b"".join(snapshots.tree_tar(key))
            layer = b"".join(snapshots.layer_tar(key))
            assert layer == b"".join(snapshots.layer_tar(key))
            if layer == END:
                assert snapshots.changes(key) == []
                continue
            parent = snapshots.extract(io.BytesIO(layer).read, parent).chain
            snapshots.prepare(again, parent)
            assert described(b"".join(snapshots.tree_tar(again))) == described(tree)
            assert b"".join(snapshots.layer_tar(again)) == END and not snapshots.changes(again)
    finally:
        snapshots.close()
        shutil.rmtree(tmp_path / "root")
