"""Extraction of archives that nobody wrote on purpose: an error of the archive's, or a tree, and
nothing outside of it (SAMPAN_FUZZ=100000 for a long run)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.oci import tar, tar_writer
from sampan.oci.tar import BadArchive
from sampan.snapshots.extract import BadLayer, extract
from sampan.snapshots.trees import remove_tree
from support.fuzzing import damaged_archives, fuzzed
from support.tars import archive, reader

pytestmark = pytest.mark.root

WATCHED = ("/etc/passwd", "/etc", "/", "/proc")


class World:
    """A tree to lay out in, and something beside it that must stay as it is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tree = directory / "tree"
        self.outside = directory / "outside"
        (self.outside / "dir").mkdir(parents=True, exist_ok=True)
        (self.outside / "secret").write_bytes(b"secret")

    def picture(self) -> list[tuple[object, ...]]:
        paths = [*WATCHED, self.directory, self.outside, *sorted(self.outside.rglob("*"))]
        seen: list[tuple[object, ...]] = []
        for path in paths:
            found = os.lstat(path)
            seen.append((str(path), found.st_mode, found.st_uid, found.st_gid, found.st_ino))
        seen.append(tuple(sorted(os.listdir(self.directory))))
        return [*seen, (self.outside / "secret").read_bytes(), (self.outside / "secret").stat().st_nlink]  # type: ignore[list-item]  # fmt: skip

    def lay_out(self, data: bytes, step: int) -> None:
        self.tree.mkdir()
        before = self.picture()
        descriptors = len(os.listdir("/proc/self/fd"))
        try:
            extract(reader(data, step), str(self.tree))
        except (BadLayer, BadArchive):
            pass
        assert self.picture() == before
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        remove_tree(str(self.tree))


@fuzzed(250)
@given(data=damaged_archives(), step=st.sampled_from([100, 512, 1 << 20]))
def test_damaged_archives(tmp_path: Path, data: bytes, step: int) -> None:
    World(tmp_path).lay_out(data, step)


_parts = st.sampled_from(
    ["a", "b", "c", "..", ".", "", ".wh.a", ".wh..wh..opq", ".wh..wh.x", ".wh.", "\udcff"]
)
_paths = st.lists(_parts, min_size=1, max_size=5).map("/".join)
_targets = st.one_of(
    _paths,
    st.sampled_from(["../outside", "../outside/secret", "..", "/", ".", "/etc", "/proc/self/root",
                     "/proc/self/fd/3", "/etc/passwd", "../tree/a", "../../../../../../etc"]),
)  # fmt: skip
_kinds = st.sampled_from(
    [tar.FILE, tar.FILE, tar.DIRECTORY, tar.DIRECTORY, tar.SYMLINK, tar.SYMLINK, tar.HARD_LINK, tar.CHARACTER, tar.FIFO]
)  # fmt: skip
_xattrs = st.dictionaries(
    st.sampled_from([b"user.a", b"trusted.overlay.opaque", b"trusted.overlay.redirect", b"security.capability", b"x"]),
    st.binary(max_size=20),
    max_size=2,
)  # fmt: skip


@st.composite
def members(draw: st.DrawFn) -> bytes:
    """Entries of few names, so that they meet: what one makes another replaces or leads through."""
    made = tar.Entry(os.fsencode(draw(_paths)), draw(_kinds))
    made.mode = draw(st.sampled_from([0o644, 0o777, 0, 0o4755, 0o1777]))
    made.uid = draw(st.sampled_from([0, 0, 99, 0xFFFFFFFF]))
    made.mtime_ns = draw(st.sampled_from([0, -1, 10**18, 1 << 70]))
    made.xattrs = draw(_xattrs)
    if made.kind in (tar.SYMLINK, tar.HARD_LINK):
        made.link = os.fsencode(draw(_targets))
    if made.kind == tar.CHARACTER:
        made.major, made.minor = draw(st.sampled_from([(0, 0), (1, 3)]))
    data = b""
    if made.kind == tar.FILE:
        data = draw(st.sampled_from([b"", b"new", bytes(700)]))
        made.size = len(data)
    return tar_writer.header(made) + data + tar_writer.padding(len(data))


@fuzzed(200)
@given(st.lists(members(), min_size=1, max_size=12))
def test_entries_that_meet(tmp_path: Path, wanted: list[bytes]) -> None:
    World(tmp_path).lay_out(archive(wanted), 1 << 20)
