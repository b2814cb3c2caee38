"""Whom a path below the data root belongs to, and the walk that gives every byte to somebody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.engine.disk import Kind, Owner, owner_of, walk

HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("path", "kind", "key"),
    [
        ("", Kind.ENGINE, ""),
        ("engine.db-wal", Kind.ENGINE, "engine.db-wal"),
        ("backups/engine.db.v1", Kind.ENGINE, "backups"),
        ("blobs", Kind.ENGINE, "blobs"),
        ("blobs/sha256", Kind.ENGINE, "blobs"),
        (f"blobs/sha256/{HEX}", Kind.BLOB, DIGEST),
        (f"blobs/sha256/{HEX}/x", Kind.UNKNOWN, f"blobs/sha256/{HEX}"),
        ("blobs/sha256/x", Kind.UNKNOWN, "blobs/sha256/x"),
        ("blobs/sha512/x", Kind.UNKNOWN, "blobs/sha512/x"),
        ("ingest/7", Kind.OPERATION, "ingest/7"),
        (f"ingest/sha256-{HEX}", Kind.DOWNLOAD, DIGEST),
        (f"layers/{HEX}", Kind.LAYER, DIGEST),
        (f"layers/{HEX}/fs/etc/passwd", Kind.LAYER, DIGEST),
        ("layers/tmp-3/fs/etc", Kind.OPERATION, "layers/tmp-3"),
        ("l/1f", Kind.ENGINE, "l"),
        (f"active/{HEX}/upper/x", Kind.CONTAINER, HEX),
        (f"containers/{HEX}/config.json", Kind.CONTAINER, HEX),
        ("active/.deep-1-2/x", Kind.REMOVAL, "active/.deep-1-2"),
        ("spare/3/upper", Kind.POOL, "spare"),
        ("trash/9/upper/x", Kind.REMOVAL, "trash/9"),
        ("volumes/data/_data/x", Kind.VOLUME, "data"),
        ("seccomp/x.bpf", Kind.PROFILE, "x.bpf"),
        ("lost+found", Kind.UNKNOWN, "lost+found"),
        ("other/deep/er", Kind.UNKNOWN, "other/deep"),
    ],
)
def test_owners(path: str, kind: Kind, key: str) -> None:
    assert owner_of(path) == Owner(kind, key)


def test_a_walk_counts_every_byte_once(tmp_path: Path) -> None:
    blob = tmp_path / f"blobs/sha256/{HEX}"
    tree = tmp_path / f"layers/{HEX}/fs"
    for directory in (blob.parent, tree, tmp_path / f"layers/{HEX}/init"):
        directory.mkdir(parents=True)
    blob.write_bytes(b"b" * 5000)
    (tree / "a").write_bytes(b"a" * 100)
    os.link(tree / "a", tree / "again")
    (tree / "link").symlink_to("nowhere")
    (tmp_path / f"layers/{HEX}/layer.json").write_bytes(b"{}")
    (tmp_path / "index.json").write_bytes(b"{}")
    sums = walk(str(tmp_path))
    assert sums[Owner(Kind.BLOB, DIGEST)].content == 5000
    layer = sums[Owner(Kind.LAYER, DIGEST)]
    assert (layer.content, layer.files) == (100, 6)
    found = [tmp_path, *tmp_path.rglob("*")]
    unique = {path.lstat().st_ino: path.lstat() for path in found}
    assert sum(total.bytes for total in sums.values()) == sum(s.st_size for s in unique.values())
    assert sum(total.disk_bytes for total in sums.values()) == sum(
        s.st_blocks * 512 for s in unique.values()
    )
