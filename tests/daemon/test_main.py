"""The daemon as a process: starts, refuses a second one, survives kill -9, stops on a signal."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.daemon.notify import notify

pytestmark = pytest.mark.root


class Sampand:
    """A daemon of its own, without a bridge."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self.socket = str(root / "run" / "sampan.sock")
        self.pid_file = root / "run" / "sampand.pid"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "sampan.daemon.main", "--bridge=none"),
                *(f"--data-root={root / 'data'}", f"--exec-root={root / 'run'}"),
                *("--cgroup-parent=/sampan-test-daemon", "--config-file", str(_empty(root))),
                *arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def wait_for(self, text: str, timeout_s: float = 30) -> None:
        """Read the log until it says `text`."""
        assert self.process.stderr is not None
        end = time.monotonic() + timeout_s
        while text not in self.said:
            piece = _read(self.process.stderr.fileno(), end - time.monotonic())
            assert piece, f"never said {text!r}: {self.said}"
            self.said += piece

    def ping(self) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(self.socket)
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            answer = b""
            while data := client.recv(4096):
                answer += data
        return answer

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=60)
        self.said += rest
        return self.process.returncode


def _empty(root: Path) -> Path:
    path = root / "daemon.json"
    if not path.exists():
        path.write_text("{}")
    return path


def _read(fd: int, timeout_s: float) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return os.read(fd, 65536).decode() if selector.select(max(0, timeout_s)) else ""


@pytest.fixture
def sampand(tmp_path: Path) -> Iterator[Sampand]:
    daemon = Sampand(tmp_path)
    try:
        daemon.wait_for("API listen on")
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()


def test_start_and_stop(sampand: Sampand) -> None:
    assert sampand.ping().endswith(b"OK")
    assert int(sampand.pid_file.read_text()) == sampand.process.pid
    assert sampand.stop() == 0
    assert "containers run on" in sampand.said
    assert not os.path.exists(sampand.socket)
    assert not sampand.pid_file.exists()


def test_open_streams_end_with_it(sampand: Sampand) -> None:
    with socket.socket(socket.AF_UNIX) as client, socket.socket(socket.AF_UNIX) as idle:
        for connection in (client, idle):
            connection.settimeout(30)
            connection.connect(sampand.socket)
        client.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert sampand.stop() == 0
    assert "Traceback" not in sampand.said


def test_a_second_daemon_is_refused(sampand: Sampand, tmp_path: Path) -> None:
    second = Sampand(tmp_path)
    _, said = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert f"another daemon (pid {sampand.process.pid}) uses {tmp_path}/data" in said
    assert "Traceback" not in said
    assert sampand.ping().endswith(b"OK")


def test_killed_and_started_again(sampand: Sampand, tmp_path: Path) -> None:
    sampand.process.kill()
    sampand.process.communicate(timeout=60)
    assert os.path.exists(sampand.socket)
    again = Sampand(tmp_path)
    try:
        again.wait_for("API listen on")
        assert again.ping().endswith(b"OK")
    finally:
        assert again.stop(signal.SIGINT) == 0


def test_reload(sampand: Sampand, tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"debug": true, "group": "0", "default-shm-size": "1m"}')
    sampand.process.send_signal(signal.SIGHUP)
    sampand.wait_for("configuration reloaded")
    assert "used after a restart: group\n" in sampand.said.replace('"', "")
    sampand.ping()
    sampand.wait_for("GET /_ping 200")
    (tmp_path / "daemon.json").write_text("{")
    sampand.process.send_signal(signal.SIGHUP)
    sampand.wait_for("configuration not reloaded")
    assert sampand.ping().endswith(b"OK")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nosuch"], "unrecognized arguments: --nosuch"),
        (["-H", "fd://"], "not supported"),
        (["-G", "nosuch", "-H", "unix:///tmp/never.sock"], "group nosuch not found"),
    ],
)
def test_refusals_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    daemon = Sampand(tmp_path, *arguments)
    _, said = daemon.process.communicate(timeout=60)
    assert daemon.process.returncode == 1
    assert said.startswith("sampand: ")
    assert message in said.splitlines()[0]
    assert "Traceback" not in said


def test_validate(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sampan.daemon.main", "--validate", "--config-file"]
    path = tmp_path / "daemon.json"
    path.write_text('{"debug": true}')
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "configuration OK\n")
    path.write_text('{"nosuch": true}')
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nosuch" in done.stderr


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify("READY=1")
        assert supervisor.recv(100) == b"READY=1"
    assert not notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")
