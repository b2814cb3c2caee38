"""The content store keeps what hashes to its name, and nothing else."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from sampan.content.store import ContentStore, DigestMismatch
from sampan.errors import InvalidArgument, NotFound
from sampan.oci.digest import Digest, digest_of

MISSING = Digest("sha256:" + "0" * 64)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path))


def test_put_read_delete(store: ContentStore) -> None:
    digest = store.put(b"hello")
    assert digest == digest_of(b"hello")
    assert store.has(digest) and store.read(digest) == b"hello" and store.size(digest) == 5
    assert store.put(b"hello") == digest
    assert list(store.digests()) == [digest]
    store.delete(digest)
    store.delete(digest)
    assert not store.has(digest)


def test_wrong_bytes_are_not_kept(store: ContentStore) -> None:
    with pytest.raises(DigestMismatch):
        store.put(b"other", digest_of(b"hello"))
    assert list(store.digests()) == [] and os.listdir(f"{store.root}/ingest") == []


def test_abandoned_writer_leaves_nothing(store: ContentStore) -> None:
    with pytest.raises(RuntimeError), store.writer() as writer:
        writer.write(b"half")
        raise RuntimeError
    assert os.listdir(f"{store.root}/ingest") == []


def test_leftovers_of_a_crash_go_at_the_next_start(store: ContentStore) -> None:
    Path(store.root, "ingest", "17").write_bytes(b"half a blob")
    ContentStore(store.root)
    assert os.listdir(f"{store.root}/ingest") == []


def test_missing_and_too_large(store: ContentStore) -> None:
    for call in (store.open, store.size, store.read):
        with pytest.raises(NotFound):
            call(MISSING)
    with pytest.raises(InvalidArgument, match="larger than 4 bytes"):
        store.read(store.put(b"hello"), 4)


def test_it_is_an_oci_layout(store: ContentStore) -> None:
    root = Path(store.root)
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((root / "index.json").read_text())["manifests"] == []
    store.sync()


def test_names_are_the_files_own_digests(store: ContentStore) -> None:
    """The system's sha256sum agrees."""
    digest = store.put(os.urandom(100_000))
    out = subprocess.run(["sha256sum", store.path(digest)], capture_output=True, text=True).stdout
    assert out.split()[0] == digest[7:]
