"""Sockets: owner and mode, stale ones, taken ones, what is not built."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from sampan.daemon.listeners import group_id_of, listen
from sampan.errors import Conflict, InvalidArgument, SampanError, Unavailable, Unsupported


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.sock"
    (listener,) = listen([f"unix://{path}"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert connects(path)
    listener.close()
    assert not path.exists()
    listener.close()


def test_a_path_alone_is_a_unix_socket(tmp_path: Path) -> None:
    (listener,) = listen([str(tmp_path / "a.sock")])
    listener.close()


@pytest.mark.root
def test_the_group(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    (listener,) = listen([f"unix://{path}"], group="adm")
    assert path.stat().st_gid == grp.getgrnam("adm").gr_gid
    listener.close()
    assert group_id_of("12345") == 12345
    with pytest.raises(InvalidArgument, match="group nosuch not found"):
        group_id_of("nosuch")


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.listen()
    dead.close()
    (listener,) = listen([f"unix://{path}"])
    assert connects(path)
    listener.close()


def test_a_living_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    (listener,) = listen([f"unix://{path}"])
    with pytest.raises(Conflict, match="another daemon listens there"):
        listen([f"unix://{path}"])
    assert connects(path)
    listener.close()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    path.write_text("precious")
    (tmp_path / "directory").mkdir()
    for name in ("a.sock", "directory"):
        with pytest.raises(SampanError):
            listen([f"unix://{tmp_path / name}"])
    assert path.read_text() == "precious"


def test_another_s_socket_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    (listener,) = listen([f"unix://{path}"])
    os.unlink(path)
    path.write_text("somebody else's")
    listener.close()
    assert path.exists()


def test_tcp() -> None:
    listeners = listen(["tcp://127.0.0.1:0"])
    with socket.socket() as client:
        assert client.connect_ex(listeners[0].socket.getsockname()) == 0
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(Conflict, match="in use"):
        listen([f"tcp://127.0.0.1:{port}"])
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("fd://", Unsupported),
        ("npipe:////./pipe/x", InvalidArgument),
        ("unix://relative", InvalidArgument),
        ("tcp://127.0.0.1:port", InvalidArgument),
        ("tcp://127.0.0.1:70000", InvalidArgument),
        ("tcp://no such host:1", InvalidArgument),
        ("tcp://192.0.2.1:1", Unavailable),
    ],
)
def test_refused_hosts(host: str, kind: type[SampanError]) -> None:
    with pytest.raises(kind):
        listen([host])


def test_all_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with pytest.raises(Unsupported):
        listen([f"unix://{path}", "fd://"])
    assert not path.exists()
