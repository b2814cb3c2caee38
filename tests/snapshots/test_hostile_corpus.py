"""The corpus of hostile layers (support/hostile.py): refused or contained, in bounded memory."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.oci import tar
from sampan.snapshots.extract import BadLayer, extract
from sampan.snapshots.trees import remove_tree
from support import hostile
from support.engines import SampanEngine
from support.tars import reader

pytestmark = pytest.mark.root

CASES = hostile.cases()
MEMORY_KIB_MAX = 48 << 10
WATCHED = ("/etc/passwd", "/etc", "/")


def picture(*paths: str) -> list[tuple[object, ...]]:
    """What must not change: names, owners, modes, link counts, data."""
    seen: list[tuple[object, ...]] = []
    for top in paths:
        for path in [Path(top), *sorted(Path(top).rglob("*"))]:
            found = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            names = os.listxattr(path, follow_symlinks=False)
            seen.append((str(path), found.st_mode, found.st_uid, found.st_nlink, data, names))
    return seen


def watched() -> list[tuple[object, ...]]:
    seen = []
    for path in WATCHED:
        found = os.lstat(path)
        seen.append((found.st_ino, found.st_mode, found.st_uid, found.st_nlink, os.listxattr(path)))
    return [*seen, os.path.lexists("/etc/sampan-hostile"), os.path.lexists("/etc/new")]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    (path / "dir").mkdir(parents=True)
    (path / "secret").write_bytes(b"secret")
    return path


def test_the_files_are_those_of_the_table() -> None:
    """`python -m support.hostile` writes them again. Others (found by fuzzing) may lie beside them."""
    stored = {}
    for name in os.listdir(hostile.CORPUS):
        with gzip.open(os.path.join(hostile.CORPUS, name)) as file:
            stored[name.removesuffix(".tar.gz")] = file.read()
    for name, (data, _) in CASES.items():
        assert stored.get(name) == data, name


@pytest.mark.parametrize("name", CASES)
def test_refused_or_contained(tmp_path: Path, outside: Path, name: str) -> None:
    data, verdict = CASES[name]
    before, around = picture(str(outside)), watched()
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptors = len(os.listdir("/proc/self/fd"))
    try:
        extract(reader(data, 700), str(tree))
        assert verdict != hostile.REFUSED, "it was laid out"
    except (BadLayer, tar.BadArchive) as error:
        assert verdict != hostile.CONTAINED, error
    assert picture(str(outside)) == before and watched() == around
    assert sorted(os.listdir(tmp_path)) == ["outside", "tree"]
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    remove_tree(str(tree))
    assert sorted(os.listdir(tmp_path)) == ["outside"]


MEASURE = """
import json, os, sys, resource
sys.path[:0] = sys.argv[2:]
from sampan.snapshots.extract import BadLayer, extract
from sampan.snapshots.trees import remove_tree
from sampan.content.compression import BadCompression, decompressed
from sampan.oci import tar
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
grown = {}
for name in sorted(os.listdir(sys.argv[1])):
    os.mkdir("tree")
    with open(os.path.join(sys.argv[1], name), "rb") as file:
        read, _ = decompressed(file.read)
        try:
            extract(read, "tree")
        except (BadLayer, tar.BadArchive, BadCompression):
            pass
    remove_tree(os.path.abspath("tree"))
    grown[name] = peak() - before
print(json.dumps(grown))
"""


def measured(tmp_path: Path, corpus: str) -> dict[str, int]:
    """By how many KiB a process had grown at most after each archive of a directory."""
    source = os.path.join(os.path.dirname(os.path.dirname(hostile.__file__)), "..", "src")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, corpus, os.path.abspath(source)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_memory_is_bounded(tmp_path: Path) -> None:
    grown = measured(tmp_path, hostile.CORPUS)
    assert max(grown.values()) < MEMORY_KIB_MAX, grown


def test_bombs(tmp_path: Path) -> None:
    """What is small outside and large inside: decompressed piece by piece, dropped when refused."""
    from backports import zstd

    zeros = bytes(1 << 20)
    head = hostile.sized(300 << 20, "big")
    plain = [head, *([zeros] * 300), bytes(1024)]
    corpus = tmp_path / "bombs"
    corpus.mkdir()
    with gzip.open(corpus / "a.gz", "wb", 1) as file:
        file.writelines(plain)
    with zstd.open(corpus / "b.zst", "wb") as file:
        file.writelines(plain)
    (corpus / "c.gz").write_bytes(gzip.compress(b"") * 100_000 + b"end")
    (corpus / "d.xz").write_bytes(xz_with_dictionary(0xFFFFFFFF))
    # A frame that asks for a window of 2 GiB: zstd's own limit is 128 MiB.
    (corpus / "e.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00")
    grown = measured(tmp_path, str(corpus))
    assert max(grown.values()) < MEMORY_KIB_MAX, grown


def xz_with_dictionary(size: int) -> bytes:
    """An xz stream whose header wants a dictionary of about that size (its code is 40 for 4 GiB)."""
    import lzma
    import zlib

    data = bytearray(lzma.compress(b"x" * 100_000, preset=1))
    at = data.index(b"\x21\x01", 12)  # the filter LZMA2, one byte of properties
    data[at + 2] = 40
    length = (data[12] + 1) * 4
    data[12 + length - 4 : 12 + length] = zlib.crc32(bytes(data[12 : 12 + length - 4])).to_bytes(
        4, "little"
    )
    return bytes(data)


def test_many_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their times arrive, though not all of them were kept in memory."""
    from sampan.snapshots import directory_times
    from support.tars import archive, directory

    monkeypatch.setattr(directory_times, "IN_MEMORY_MAX", 10)
    tree = tmp_path / "tree"
    tree.mkdir()
    members = [directory(f"d{n % 40}", mtime_ns=n * 10**9 + 1) for n in range(95)]
    extract(reader(archive(members)), str(tree))
    times = {int(path.name[1:]): path.stat().st_mtime_ns for path in tree.iterdir()}
    assert times == {n: ((n + 80 if n < 15 else n + 40) * 10**9 + 1) for n in range(40)}
    assert os.listdir(tmp_path) == ["tree"]


def test_by_way_of_an_engine(sampan: SampanEngine) -> None:
    """Imported one after the other: an answer that says why, an engine that goes on."""
    layers = os.path.join(sampan.data_root, "layers")
    around = watched()
    for name in sorted(CASES):
        with open(os.path.join(hostile.CORPUS, f"{name}.tar.gz"), "rb") as file:
            answer = sampan.request("POST", "/images/create", raw=file.read(), query={"fromSrc": "-"})  # fmt: skip
        verdict = CASES[name][1]
        failed = b'"error"' in answer.body
        assert answer.status in (200, 400), (name, answer)
        if verdict == hostile.REFUSED:
            assert answer.status == 400 or failed, name
        if verdict == hostile.CONTAINED:
            assert answer.status == 200 and not failed, (name, answer.body)
        if answer.status == 200 and not failed:
            identifier = json.loads(answer.body)["status"]
            assert sampan.delete(f"/images/{identifier}", force=True).status == 200
    assert watched() == around
    assert not [name for name in os.listdir(layers) if len(name) != 64], "a refused layer stays"
    assert sampan.get("/_ping").status == 200
