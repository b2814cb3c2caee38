"""Paths as `docker cp` means them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.snapshots import places


@pytest.mark.parametrize(
    ("path", "want", "name"),
    [
        ("/", "/", "/"),
        (".", "/.", "."),
        ("/.", "/.", "."),
        ("//", "/", "/"),
        ("//a", "/a", "a"),
        ("a", "/a", "a"),
        ("/a/", "/a/", "a"),
        ("/a//", "/a/", "a"),
        ("/a/.", "/a/.", "."),
        ("/a/./", "/a/./", "."),
        ("/a/./b", "/a/b", "b"),
        ("/a/../b/", "/b/", "b"),
        ("../../b", "/b", "b"),
        ("/a/..", "/", "/"),
        ("/a/../.", "/.", "."),
        ("/...", "/...", "..."),
    ],
)
def test_absolute(path: str, want: str, name: str) -> None:
    """Go's path.Join with moby's PreserveTrailingDotOrSeparator."""
    assert places.absolute(path) == want
    assert places.base(places.absolute(path)) == name


def test_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name, target in (
        ("abs", "/d"), ("up", "../../../../d/sub"), ("d/back", "../d/sub/.."), ("chain", "abs/back"),
        ("dangling", "/no/where/../x"), ("loop", "loop"), ("through", "/abs/sub/../new/y"),
    ):  # fmt: skip
        (tmp_path / name).symlink_to(target)
    root = os.open(tmp_path, os.O_PATH)
    try:
        for path, want in (
            ("/", "/"), ("/abs", "/d"), ("/abs/", "/d"), ("/up", "/d/sub"), ("/chain/sub", "/d/sub"),
            ("/dangling", "/no/x"), ("/through", "/d/new/y"), ("/nope/../d", "/d"), ("/../..", "/"),
        ):  # fmt: skip
            assert places.real_path(root, path) == want, path
        with pytest.raises(OSError, match="symbolic links"):
            places.real_path(root, "/loop/x")
        with places.find(root, "/chain") as place:
            assert place.name == b"chain"
        with places.find(root, "/chain/") as place:
            assert place.name == b"" and place.status.st_ino == (tmp_path / "d").stat().st_ino
    finally:
        os.close(root)
