"""One daemon for a data root; the PID file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.daemon.locks import DataRootLock, PidFile, read_pid
from sampan.errors import Conflict, Unavailable


def test_one_daemon_for_a_data_root(tmp_path: Path) -> None:
    lock = DataRootLock(str(tmp_path / "root"))
    with pytest.raises(Conflict, match=rf"another daemon \(pid {os.getpid()}\) uses "):
        DataRootLock(str(tmp_path / "root"))
    lock.close()
    DataRootLock(str(tmp_path / "root")).close()


def test_the_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "sampand.pid"
    held = PidFile(str(path))
    assert read_pid(str(path)) == os.getpid()
    with pytest.raises(Conflict, match=f"process with PID {os.getpid()} is still running"):
        PidFile(str(path))
    held.close()
    assert not path.exists()


@pytest.mark.parametrize("content", ["1\n", "", "nonsense", "99999999999"])
def test_a_pid_that_a_crash_left_behind_means_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sampand.pid"
    path.write_text(content)
    held = PidFile(str(path))
    assert read_pid(str(path)) == os.getpid()
    held.close()


def test_a_pid_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot write the PID file"):
        PidFile(str(tmp_path / "file" / "sampand.pid"))
