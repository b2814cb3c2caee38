"""Names, signals, detach keys, binds: texts that clients write."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest

from sampan.engine.detach_keys import parse_detach_keys
from sampan.engine.model import BindOptions, ContainerConfig, HostConfig, MountSpec, TmpfsOptions
from sampan.engine.mounts import make_sources, oci_mount, parse_bind, parse_mounts
from sampan.engine.names import checked_name, container_id, random_name
from sampan.engine.signals import signal_number
from sampan.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigterm", 15),
        ("1", 1),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1),
    ],
)
def test_signals(text: str, number: int) -> None:
    """Names with and without SIG, numbers, real-time ones."""
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIG", "NOSUCH", "-9", "RTMIN+99", "RTMAX-x"])
def test_no_signals(text: str) -> None:
    """Everything else is refused with dockerd's text."""
    with pytest.raises(InvalidArgument, match=rf"^Invalid signal: {re.escape(text)}$"):
        signal_number(text)


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-[,ctrl-@", b"\x1b\0"), ("", b"")],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    """Docker's spelling of key sequences."""
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,,b"])
def test_bad_detach_keys(text: str) -> None:
    """What is no key is named."""
    with pytest.raises(InvalidArgument, match="Invalid detach keys"):
        parse_detach_keys(text)


def test_names() -> None:
    """A slash in front is not part of the name; what is no name is refused."""
    assert checked_name("/web-1.a_b") == "web-1.a_b"
    for bad in ("a", "-ab", "a b", "a/b", "ab\n", "/"):
        with pytest.raises(InvalidArgument, match="only \\[a-zA-Z0-9\\]"):
            checked_name(bad)
    assert len(container_id()) == 64
    assert not container_id()[:12].isdecimal()


def test_random_name_avoids_taken_ones() -> None:
    """When every pair is taken a number follows."""

    class Full:
        def __contains__(self, name: object) -> bool:
            return str(name)[-1:].isalpha()

    assert random_name(Full())[-1].isdecimal()


@pytest.mark.parametrize(
    ("text", "source", "destination", "rw", "propagation"),
    [
        ("/a:/b", "/a", "/b", True, "rprivate"),
        ("/a:/b:ro", "/a", "/b", False, "rprivate"),
        ("/a/../c:/b/:rw,shared", "/c", "/b", True, "shared"),
        ("/a:/b:z,ro", "/a", "/b", False, "rprivate"),
    ],
)
def test_binds(text: str, source: str, destination: str, rw: bool, propagation: str) -> None:
    """`SOURCE:TARGET:OPTIONS`, cleaned."""
    bind = parse_bind(text)
    assert (bind.source, bind.destination) == (source, destination)
    assert (bind.rw, bind.propagation) == (rw, propagation)


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("/a:/b:nosuch", InvalidArgument, "invalid mode: nosuch"),
        ("/a:b", InvalidArgument, "must be absolute"),
        ("/a:/", InvalidArgument, "destination can't be '/'"),
        ("/a:/b:ro:x", InvalidArgument, "invalid volume specification"),
        (":/b", InvalidArgument, "invalid volume specification"),
    ],
)
def test_bad_binds(text: str, kind: type[Exception], match: str) -> None:
    """A bind that cannot be made is refused at create."""
    with pytest.raises(kind, match=match):
        parse_bind(text)


def test_mounts_are_ordered_and_unique(tmp_path: Any) -> None:
    """Deeper targets come later; two for one target are refused."""
    host = HostConfig(
        binds=[f"{tmp_path}:/a/b/c", f"{tmp_path}/new:/a"],
        tmpfs={"/a/b": "size=1m"},
        mounts=[
            MountSpec(
                type="tmpfs", target="/z", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o700)
            )
        ],
    )
    mounts = parse_mounts(ContainerConfig(), host)
    assert [mount.destination for mount in mounts] == ["/a", "/z", "/a/b", "/a/b/c"]
    assert oci_mount(mounts[1])["options"][3:] == ["size=4096", "mode=700"]
    make_sources(mounts, host)
    assert (tmp_path / "new").is_dir()
    host.tmpfs = {"/a": ""}
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /a"):
        parse_mounts(ContainerConfig(), host)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (
            MountSpec(type="bind", source="/nosuch/x", target="/a"),
            "bind source path does not exist",
        ),
        (MountSpec(type="bind", source="x", target="/a"), "mount path must be absolute"),
        (MountSpec(type="floppy", target="/a"), "mount type unknown"),
        (
            MountSpec(
                type="bind", source="/", target="/a", bind_options=BindOptions(propagation="x")
            ),
            "invalid propagation",
        ),
    ],
)
def test_bad_mounts(spec: MountSpec, match: str) -> None:
    """`--mount` does not make sources, and says what is wrong."""
    with pytest.raises(InvalidArgument, match=match):
        parse_mounts(ContainerConfig(), HostConfig(mounts=[spec]))


def test_bad_tmpfs() -> None:
    """A tmpfs option that is none is refused."""
    with pytest.raises(InvalidArgument, match='invalid tmpfs option \\["color=red"\\]'):
        parse_mounts(ContainerConfig(), HostConfig(tmpfs={"/a": "color=red"}))
