"""A layer laid out by this engine is the tree that dockerd makes of it, to the last attribute; and
what a container commits of it comes back as the same tree."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator

import pytest

from sampan.oci import tar, tar_writer
from support.engines import DockerEngine, Engine, SampanEngine
from support.hostile import pax, sparse_1
from support.rootfs import image_tar
from support.tars import archive, device, directory, entry, file, hard_link, symlink

pytestmark = pytest.mark.root

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
LONG = "/".join(["n" * 60] * 5)
NOT_NAMED = (
    b"",
    b"parents",
    b"parents/left",
    b"d/left",
    *(LONG.rsplit("/", n)[0].encode() for n in range(1, 5)),
)
"""Directories that an archive leaves out have no time; nor has the root in dockerd's trees."""


def _base() -> list[bytes]:
    """Everything that a layer can hold."""
    return [
        directory("./", mode=0o755),
        directory("dev", mtime_ns=5),
        directory("d", mode=0o2775, uid=7, gid=8, mtime_ns=10**18 + 123_456_789),
        file("d/set-user", b"x", mode=0o4755, uid=1, gid=2, mtime_ns=10**18 + 1),
        file("d/set-group", b"x", mode=0o2755),
        file("d/none", b"", mode=0),
        file("d/capable", b"x", mode=0o755, xattrs={b"security.capability": CAPABILITY}),
        file("d/attributes", b"x", xattrs={b"user.one": b"1", b"user.\xc3\xa4": b"\0\xff"}),
        directory("sticky", mode=0o1777, xattrs={b"user.dir": b"d"}),
        symlink("d/link", "../sticky", uid=9, gid=9, mtime_ns=10**18 + 999),
        symlink("d/nowhere", "/no/such"),
        symlink("d/" + "l" * 90, "t" * 300),
        file("d/a", b"same"),
        hard_link("d/b", "d/a"),
        hard_link("other", "d/link", uid=9, gid=9, mtime_ns=10**18 + 999),
        directory("d/inside"),
        file("d/inside/f", b"x"),
        device("dev/null", 1, 3),
        device("dev/disk", 8, 1, tar.BLOCK_DEVICE),
        device("dev/large", 259, 70_000),
        tar_writer.header(entry("fifo", tar.FIFO, mode=0o622)),
        file(LONG, b"long"),
        pax(file("x", b"raw"), path=b"d/\xff\xfe"),
        pax(file("x", b"utf"), path="d/äöü".encode()),
        file("d/new\nline", b"x"),
        file("big-owner", b"x", uid=3_000_000_000, gid=4_000_000_000),
        file("parents/left/out", b"x"),
        sparse_1(b"1\n1000000\n5\n", b"2000000", b"hello"),
        file("zeros", bytes(300_000)),
        directory("gone"),
        file("gone/f", b"x"),
        directory("emptied"),
        file("emptied/f", b"x"),
        directory("replaced"),
        file("replaced/f", b"x"),
        file("file-gone", b"x"),
        file("to-directory", b"x"),
    ]


def _changes() -> list[bytes]:
    """A layer upon it: what is removed, emptied, replaced."""
    return [
        file(".wh.gone", b""),
        file(".wh.file-gone", b""),
        directory("d", mode=0o2775, uid=7, gid=8, mtime_ns=77),
        directory("emptied", mode=0o700),
        file("emptied/.wh..wh..opq", b""),
        file("emptied/new", b"new"),
        file("replaced", b"now a file"),
        directory("to-directory", mode=0o750),
        file("to-directory/f", b"x"),
        file("d/.wh.a", b""),
        file("d/set-user", b"changed", mode=0o755),
    ]


def tree(path: str) -> dict[bytes, tuple[object, ...]]:
    """All that a tree is, by name; the root is b""."""
    top = os.fsencode(path)
    found: dict[bytes, tuple[object, ...]] = {}
    links: dict[int, bytes] = {}
    for folder, directories, files in os.walk(top):
        directories.sort()
        names = [*directories, *sorted(files)]
        for item in [os.path.join(folder, name) for name in names] + [top] * (folder == top):
            name = item[len(top) + 1 :]
            found[name] = _one(item, links, name)
    return found


def _one(item: bytes, links: dict[int, bytes], name: bytes) -> tuple[object, ...]:
    """Kind, mode, owner, size, time, data or target or device, first name of the inode, attributes."""
    status = os.lstat(item)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFCHR and status.st_rdev == 0:
        return ("whiteout",)
    data: object = None
    size = 0
    if kind == stat.S_IFREG:
        size = status.st_size
        with open(item, "rb") as opened:
            data = hashlib.sha256(opened.read()).hexdigest()
    elif kind == stat.S_IFLNK:
        data = os.readlink(item)
    elif kind != stat.S_IFDIR:
        data = (os.major(status.st_rdev), os.minor(status.st_rdev))
    shared = kind != stat.S_IFDIR and status.st_nlink > 1
    first = links.setdefault(status.st_ino, name) if shared else name
    xattrs = {
        key: os.getxattr(item, key, follow_symlinks=False)
        for key in os.listxattr(item, follow_symlinks=False)
    }
    time = None if name in NOT_NAMED else status.st_mtime_ns
    return oct(status.st_mode), status.st_uid, status.st_gid, size, time, data, first, xattrs


@pytest.fixture
def name() -> str:
    return "t" + secrets.token_hex(4)


@pytest.fixture
def removing(sampan: SampanEngine, dockerd: DockerEngine, name: str) -> Iterator[None]:
    yield
    for engine in (sampan, dockerd):
        engine.delete(f"/images/{name}:1", force=True)


def layers(engine: Engine, name: str, data: bytes) -> list[str]:
    """Load an image; the directories of its layers."""
    answer = engine.request("POST", "/images/load", raw=data)
    assert answer.status == 200 and b'"error' not in answer.body, answer
    return layers_of(engine, f"{name}:1")


def layers_of(engine: Engine, reference: str) -> list[str]:
    """The directories of an image's layers, lowest first, as inspect tells them."""
    driver = engine.get(f"/images/{reference}/json").json["GraphDriver"]
    assert driver["Name"] in ("overlay2", "overlay"), driver
    lower = driver["Data"].get("LowerDir", "")
    return [*reversed(lower.split(":") if lower else []), driver["Data"]["UpperDir"]]


def test_as_dockerd_lays_them_out(
    sampan: SampanEngine, dockerd: DockerEngine, name: str, removing: None
) -> None:
    data = image_tar(f"{name}:1", [archive(_base()), archive(_changes())])
    ours, theirs = layers(sampan, name, data), layers(dockerd, name, data)
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        found, wanted = tree(mine), tree(other)
        assert sorted(found) == sorted(wanted)
        differing = {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]}
        assert not differing, "\n".join(
            f"{k!r}\n   {v[0]}\n   {v[1]}" for k, v in differing.items()
        )


def test_out_and_in_again(sampan: SampanEngine, name: str) -> None:
    """Exported and imported, it is the same tree; times before 1970 too, which dockerd cuts off."""
    early = [
        file("early", b"x", mtime_ns=-315_619_200 * 10**9 - 5),
        directory("early-d", mtime_ns=-1),
    ]
    layers(sampan, name, image_tar(f"{name}:1", [archive([*_base(), *early])], {"Cmd": ["none"]}))
    [before] = layers_of(sampan, f"{name}:1")
    container = sampan.post("/containers/create", {"Image": f"{name}:1"}).json["Id"]
    try:
        exported = [sampan.get(f"/containers/{container}/export").body for _ in range(2)]
    finally:
        sampan.delete(f"/containers/{container}", force=True)
    assert exported[0] == exported[1]
    query = {"fromSrc": "-", "repo": f"{name}-again", "tag": "1"}
    answer = sampan.request("POST", "/images/create", raw=exported[0], query=query)
    assert answer.status == 200 and b'"error' not in answer.body
    [after] = layers_of(sampan, f"{name}-again:1")
    wanted, found = tree(before), tree(after)
    for key in wanted:
        if key:
            assert found[key] == wanted[key], key
    for tag in (f"{name}:1", f"{name}-again:1"):
        assert sampan.delete(f"/images/{tag}", force=True).status == 200
