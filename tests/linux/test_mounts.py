"""Mounts as values, option words, and trees that are detached, changed and attached."""

from __future__ import annotations

import copy
import errno
import os

import pytest

from sampan.linux import mounts, process
from sampan.linux import syscalls as sys
from sampan.linux.mounts import Mount, parse_options


def test_a_mount_is_a_value() -> None:
    mount = Mount("overlay", "overlay", "/m", ["lowerdir=/l", "ro"])
    assert Mount.from_dict(mount.to_dict()) == mount
    assert len({mount, copy.copy(mount)}) == 1
    assert mount.options == ("lowerdir=/l", "ro")
    with pytest.raises(AttributeError, match="immutable"):
        mount.target = "/elsewhere"


@pytest.mark.parametrize(
    ("words", "flags", "data"),
    [
        (["ro", "nosuid"], sys.MS_RDONLY | sys.MS_NOSUID, []),
        (["ro", "rw"], 0, []),
        (["rbind"], sys.MS_BIND | sys.MS_REC, []),
        (["size=1m", "mode=755", "noexec"], sys.MS_NOEXEC, ["size=1m", "mode=755"]),
        (["defaults", "relatime"], sys.MS_RELATIME, []),
    ],
)
def test_options(words: list[str], flags: int, data: list[str]) -> None:
    options = parse_options(words)
    assert (options.flags, options.data) == (flags, data)


def test_options_of_the_specification() -> None:
    """Recursive attributes, propagation, idmap and tmpcopyup are none of the file system's."""
    options = parse_options(["rro", "rnosuid", "rslave", "ridmap", "tmpcopyup"])
    assert options.recursive_set == sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NOSUID
    assert options.propagation == [sys.MS_SLAVE | sys.MS_REC]
    assert (options.idmap, options.copy_up, options.data) == ("ridmap", True, [])
    undone = parse_options(["rro", "rrw"])
    assert (undone.recursive_set, undone.recursive_clear) == (0, sys.MOUNT_ATTR_RDONLY)


def test_attributes_of_a_bind() -> None:
    wanted, cleared = parse_options(["bind", "ro", "noatime", "exec"]).attributes()
    assert wanted == sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NOATIME
    assert cleared == sys.MOUNT_ATTR_NOEXEC | sys.MOUNT_ATTR__ATIME


@pytest.mark.root
@pytest.mark.vm
def test_perform(tmp_path: object) -> None:
    """A file system and a read-only bind of it, in a mount namespace of the test's own."""
    base = str(tmp_path)
    for name in ("fs", "bind"):
        os.mkdir(f"{base}/{name}")
    pid, pidfd = process.clone(sys.CLONE_NEWNS)
    if pid == 0:
        os._exit(_perform(base))
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert os.listdir(f"{base}/fs") == []


def _perform(base: str) -> int:
    try:
        sys.mount(None, "/", None, sys.MS_REC | sys.MS_PRIVATE)
        mounts.perform(Mount("tmpfs", "none", f"{base}/fs", ["size=64k", "private"]))
        os.mkdir(f"{base}/fs/inner")
        mounts.perform(Mount("bind", f"{base}/fs", f"{base}/bind", ["bind", "ro"]))
        try:
            os.mkdir(f"{base}/bind/more")
        except OSError as error:
            return 0 if error.errno == errno.EROFS else 3
        return 2
    except OSError:
        return 4


@pytest.mark.root
def test_a_failing_call_names_itself_and_the_path() -> None:
    with pytest.raises(OSError, match="mount: No such device") as caught:
        sys.mount("none", "/mnt", "nosuchfs", 0)
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, "/mnt")


@pytest.mark.root
@pytest.mark.vm
def test_overlay_of_many_layers(tmp_path: object) -> None:
    """A hundred layers with long names: more than the page of options that mount(2) reads."""
    base = str(tmp_path)
    paths = [f"{base}/{number:03}{'x' * 100}:y" for number in range(100)]
    for number, path in enumerate(paths):
        os.mkdir(path)
        os.mkdir(f"{path}/from{number}")
    os.mkdir(f"{base}/top")
    escaped = ":".join(path.replace(":", "\\:") for path in paths)
    mount = Mount("overlay", "overlay", f"{base}/top", [f"lowerdir={escaped}"])
    pid, pidfd = process.clone(sys.CLONE_NEWNS)
    if pid == 0:
        try:
            sys.mount(None, "/", None, sys.MS_REC | sys.MS_PRIVATE)
            mounts.perform(mount)
            os._exit(0 if len(os.listdir(f"{base}/top")) == 100 else 1)
        finally:
            os._exit(2)
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
