"""A tree put together without the machine's mount table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.engine.assembly import Bind, assemble
from sampan.errors import RuntimeFailure
from sampan.linux import rooted, syscalls
from sampan.linux.mounts import Mount
from support.waiting import wait_for

pytestmark = pytest.mark.root

WRITE = os.O_WRONLY | os.O_CREAT


def mountinfo() -> str:
    with open("/proc/self/mountinfo") as file:
        return file.read()


def layers(top: Path) -> list[Mount]:
    for name in ("lower", "upper", "work", "place"):
        (top / name).mkdir()
    (top / "lower" / "there").write_text("lower")
    (top / "lower" / "link").symlink_to("/made/in")
    options = (f"lowerdir={top}/lower", f"upperdir={top}/upper", f"workdir={top}/work")
    return [Mount("overlay", "overlay", "", options)]


def content(root: int, path: str) -> bytes:
    fd = rooted.open_inside(root, path, os.O_RDONLY)
    with open(fd, "rb") as file:
        return file.read()


def test_layers_and_binds(tmp_path: Path) -> None:
    rootfs = layers(tmp_path)
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("bound")
    before = mountinfo()
    threads = len(os.listdir("/proc/self/task"))
    binds = [
        Bind(str(source), "/link"),
        Bind(str(source), "/readonly", ("rbind", "ro", "rro")),
        Bind(str(source / "file"), "/made/single"),
    ]
    root = assemble(str(tmp_path / "place"), rootfs, binds)
    try:
        wait_for(lambda: len(os.listdir("/proc/self/task")) == threads, "the thread to be gone")
        assert mountinfo() == before
        assert content(root, "/there") == b"lower"
        assert content(root, "/made/in/file") == content(root, "/made/single") == b"bound"
        os.close(rooted.open_inside(root, "/made/in/new", WRITE, mode=0o600))
        os.close(rooted.open_inside(root, "/new", WRITE, mode=0o600))
        with pytest.raises(OSError, match="Read-only"):
            rooted.open_inside(root, "/readonly/new2", WRITE, mode=0o600)
    finally:
        os.close(root)
    assert (source / "new").exists() and (tmp_path / "upper" / "new").exists()
    assert os.listdir(tmp_path / "place") == [] and mountinfo() == before


def test_what_is_mounted_below_a_read_only_bind(tmp_path: Path) -> None:
    """Is read-only too, as in the container."""
    rootfs = layers(tmp_path)
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    syscalls.mount("tmpfs", str(source / "below"), "tmpfs", 0, None)
    try:
        for words, refused in ((("rbind", "ro", "rro"), True), (("rbind", "ro"), False)):
            place = str(tmp_path / "place")
            root = assemble(place, rootfs, [Bind(str(source), "/b", words)])
            try:
                fd = rooted.open_inside(root, "/b/below/new", WRITE, mode=0o600)
                os.close(fd)
                assert not refused
            except OSError as error:
                assert refused and error.strerror is not None and "Read-only" in error.strerror
            finally:
                os.close(root)
    finally:
        syscalls.umount2(str(source / "below"))


def test_a_read_only_root(tmp_path: Path) -> None:
    rootfs = layers(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    root = assemble(
        str(tmp_path / "place"), rootfs, [Bind(str(source), "/made/in")], writable=False
    )
    try:
        with pytest.raises(OSError, match="Read-only"):
            rooted.open_inside(root, "/new", WRITE, mode=0o600)
        os.close(rooted.open_inside(root, "/made/in/new", WRITE, mode=0o600))
    finally:
        os.close(root)


def test_a_source_that_is_gone(tmp_path: Path) -> None:
    """Names the place, and leaves nothing."""
    rootfs = layers(tmp_path)
    before, descriptors = mountinfo(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeFailure, match="mounting /b failed: no such file or directory"):
        assemble(str(tmp_path / "place"), rootfs, [Bind(f"{tmp_path}/nope", "/b")])
    assert mountinfo() == before and len(os.listdir("/proc/self/fd")) <= descriptors
