"""Random archives of links, directories and files: whatever happens, nothing outside changes."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from sampan.oci import tar
from sampan.snapshots.extract import BadLayer, extract
from support.tars import archive, device, directory, file, hard_link, reader, symlink

pytestmark = pytest.mark.root

PARTS = ["a", "b", "c", "..", ".", "", ".wh.a", ".wh..wh..opq"]


def one_member(source: random.Random, outside: str) -> bytes:
    def name() -> str:
        return "/".join(source.choice(PARTS) for _ in range(source.randrange(1, 5)))

    def target() -> str:
        return source.choice(
            [name(), outside, f"{outside}/secret", f"../outside/{name()}", "..", "/"]
        )

    kind = source.randrange(7)
    if kind == 0:
        return directory(name(), mode=0o777)
    if kind == 1:
        return hard_link(name(), target())
    if kind == 2:
        return device(name(), 1, 3)
    if kind in (3, 4):
        return symlink(name(), target())
    return file(name(), b"new", mode=0o777)


def test_random_archives(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (outside / "a").mkdir()
    before = [(str(p), p.lstat().st_mode, p.lstat().st_nlink) for p in sorted(outside.rglob("*"))]
    tree = tmp_path / "tree"
    source = random.Random(11)
    laid_out = 0
    for _ in range(300):
        tree.mkdir()
        members = [one_member(source, str(outside)) for _ in range(source.randrange(2, 10))]
        try:
            extract(reader(archive(members)), str(tree))
            laid_out += 1
        except (BadLayer, tar.BadArchive):
            pass
        shutil.rmtree(tree)
    now = [(str(p), p.lstat().st_mode, p.lstat().st_nlink) for p in sorted(outside.rglob("*"))]
    assert now == before and (outside / "secret").read_bytes() == b"secret"
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert laid_out > 10, "most archives must not fail at their first entry"
