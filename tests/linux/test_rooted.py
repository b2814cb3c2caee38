"""Paths inside a root that somebody hostile has filled."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from sampan.linux import rooted


@pytest.fixture
def root(tmp_path: object) -> Iterator[tuple[int, str]]:
    """A root with a file outside of it that nothing may reach."""
    base = str(tmp_path)
    os.mkdir(f"{base}/root")
    with open(f"{base}/secret", "w") as file:
        file.write("outside")
    fd = os.open(f"{base}/root", os.O_PATH | os.O_DIRECTORY)
    yield fd, f"{base}/root"
    os.close(fd)
    assert sorted(os.listdir(base)) == ["root", "secret"]


Root = tuple[int, str]


@pytest.mark.parametrize("path", ["../secret", "/../secret", "/link", "up/../../secret"])
def test_no_way_out(root: Root, path: str) -> None:
    fd, base = root
    os.symlink(f"{os.path.dirname(base)}/secret", f"{base}/link")
    os.mkdir(f"{base}/up")
    with pytest.raises(FileNotFoundError):
        rooted.open_inside(fd, path)


def test_magic_links_are_refused(root: Root) -> None:
    fd, base = root
    os.symlink(f"/proc/self/fd/{fd}", f"{base}/magic")
    with pytest.raises(OSError, match="openat2"):
        rooted.open_inside(fd, "/magic")


def test_directories_are_made(root: Root) -> None:
    fd, base = root
    made, new = rooted.make_directory(fd, "/a/b/../c")
    os.close(made)
    assert new
    assert os.path.isdir(f"{base}/a/c")
    again, new = rooted.make_directory(fd, "a/c")
    os.close(again)
    assert not new


@pytest.mark.parametrize("leads", ["/real/dir", "../../../real/dir", "real/dir"])
def test_a_dangling_link_is_filled_inside(root: Root, leads: str) -> None:
    fd, base = root
    os.symlink(leads, f"{base}/link")
    made, _ = rooted.make_directory(fd, "/link/deep")
    os.close(made)
    assert os.path.isdir(f"{base}/real/dir/deep")


def test_links_in_a_circle(root: Root) -> None:
    fd, base = root
    os.symlink("b", f"{base}/a")
    os.symlink("a", f"{base}/b")
    with pytest.raises(OSError, match="symbolic links") as caught:
        rooted.make_directory(fd, "/a/c")
    assert caught.value.errno == errno.ELOOP


def test_a_file_in_the_way(root: Root) -> None:
    fd, base = root
    with open(f"{base}/file", "w"):
        pass
    with pytest.raises(NotADirectoryError):
        rooted.make_directory(fd, "/file/below")


def test_files_are_made(root: Root) -> None:
    fd, base = root
    made, new = rooted.make_file(fd, "/etc/hosts", mode=0o600)
    os.close(made)
    assert new
    assert os.stat(f"{base}/etc/hosts").st_size == 0
    os.symlink("/run/real", f"{base}/etc/resolv.conf")
    made, new = rooted.make_file(fd, "/etc/resolv.conf")
    os.close(made)
    assert new
    assert os.path.isfile(f"{base}/run/real")


def test_parent(root: Root) -> None:
    fd, _ = root
    directory, name = rooted.parent_inside(fd, "/x/y/")
    os.close(directory)
    assert name == "y"
    with pytest.raises(OSError, match="no file name"):
        rooted.parent_inside(fd, "/x/..")
