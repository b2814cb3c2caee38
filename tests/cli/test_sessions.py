"""Terminals, streams and signals of `run`, `start`, `attach` and `exec`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from support.command import DockerCLI
from support.engines import Engine
from support.waiting import wait_for

pytestmark = pytest.mark.root

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
RUN = ("run", "--rm", "--network", "none")
DETACH = b"\x10\x11"


@pytest.fixture
def cli(target: Engine) -> DockerCLI:
    return target.cli(SAMPAN)


def test_a_shell_on_a_terminal(cli: DockerCLI) -> None:
    with cli.terminal(*RUN, "-it", "busybox:test", "sh", rows=33, columns=99) as terminal:
        terminal.expect("#")
        terminal.type("stty size; tty; exit 7\n")
        assert "33 99" in terminal.expect("/dev/pts/0")
        assert terminal.wait() == 7


def test_the_window_changes(cli: DockerCLI) -> None:
    script = 'echo ready; until [ "$(stty size)" = "41 101" ]; do sleep 0.02; done; echo seen'
    with cli.terminal(*RUN, "-it", "busybox:test", "sh", "-c", script) as terminal:
        terminal.expect("ready")
        terminal.resize(41, 101)
        terminal.expect("seen")
        assert terminal.wait() == 0


def test_the_terminal_is_as_it_was(cli: DockerCLI) -> None:
    import termios

    with cli.terminal(*RUN, "-it", "busybox:test", "sh") as terminal:
        before = termios.tcgetattr(terminal.master)
        terminal.expect("#")
        assert termios.tcgetattr(terminal.master) != before
        terminal.type("exit\n")
        terminal.wait()
        assert termios.tcgetattr(terminal.master) == before


@pytest.mark.parametrize("keys", ["", "ctrl-a,x"])
def test_detaching(cli: DockerCLI, unused_name: str, keys: str) -> None:
    """The sequence ends the session, not the container; another attaches and ends it."""
    flags = ("--detach-keys", keys) if keys else ()
    typed = b"\x01x" if keys else DETACH
    run = ("run", "-it", *flags, "--name", unused_name, "--network", "none", "busybox:test", "sh")
    with cli.terminal(*run) as terminal:
        terminal.expect("#")
        terminal.type(b"V=kept\n")
        terminal.expect("#")
        terminal.type(typed)
        assert terminal.wait() == 0
    assert cli("inspect", "-f", "{{.State.Running}}", unused_name).line == "true"
    with cli.terminal("attach", *flags, unused_name) as terminal:
        terminal.type(b"echo it is $V; exit 4\n")
        terminal.expect("it is kept")
        assert terminal.wait() == 4
    cli("rm", unused_name)


def test_an_exec_on_a_terminal(cli: DockerCLI, unused_name: str) -> None:
    cli("run", "-d", "--name", unused_name, "--network", "none", "busybox:test", "sleep", "1000")
    with cli.terminal("exec", "-it", unused_name, "sh", rows=30, columns=90) as terminal:
        terminal.expect("#")
        terminal.type("stty size; exit 5\n")
        terminal.expect("30 90")
        assert terminal.wait() == 5
    with cli.terminal("exec", "-it", unused_name, "sh") as terminal:
        terminal.expect("#")
        terminal.type(DETACH)
        assert terminal.wait() == 0
    cli("rm", "-f", unused_name)


def test_input_through_a_pipe(cli: DockerCLI) -> None:
    """Megabytes in and out at once: neither direction waits for the other, and nothing is lost."""
    data = os.urandom(1 << 20).hex()
    done = cli(*RUN, "-i", "busybox:test", "cat", stdin=data)
    assert done.out == data


def test_the_end_of_input_is_passed_on(cli: DockerCLI, unused_name: str) -> None:
    assert cli(*RUN, "-i", "busybox:test", "sh", "-c", "wc -c; echo behind", stdin="abc").out == "3\nbehind\n"  # fmt: skip
    cli("run", "-d", "--name", unused_name, "--network", "none", "busybox:test", "sleep", "1000")
    assert cli("exec", "-i", unused_name, "wc", "-c", stdin="abcd").out == "4\n"
    cli("rm", "-f", unused_name)


def test_start_attached(cli: DockerCLI, unused_name: str) -> None:
    create = ("create", "-i", "--name", unused_name, "--network", "none", "busybox:test")
    cli(*create, "sh", "-c", "cat; echo bad >&2; exit 9")
    done = cli("start", "-a", "-i", unused_name, stdin="hello\n", check=False)
    assert (done.code, done.out, done.err) == (9, "hello\n", "bad\n")
    cli("rm", unused_name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on(cli: DockerCLI, unused_name: str, number: signal.Signals) -> None:
    script = "trap 'echo got it; exit 3' TERM INT USR1; echo ready; while :; do sleep 0.05; done"
    process = cli.background(*RUN, "--name", unused_name, "busybox:test", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, b"got it\n")


def test_signals_stay_here_without_the_proxy(cli: DockerCLI, unused_name: str) -> None:
    run = ("run", "--sig-proxy=false", "--network", "none", "--name", unused_name, "busybox:test")
    process = cli.background(*run, "sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert cli("inspect", "-f", "{{.State.Running}}", unused_name).line == "true"
    cli("rm", "-f", unused_name)


def test_attach_takes_output_and_status(cli: DockerCLI, unused_name: str) -> None:
    script = "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.05; done"
    cli("run", "-d", "--name", unused_name, "--network", "none", "busybox:test", "sh", "-c", script)
    wait_for(lambda: cli("logs", unused_name).out == "up\n", "the trap to be set")
    process = cli.background("attach", unused_name)
    wait_for(lambda: "attach" in cli("events", "--since", "1m", "--until", "0s", "-f", f"container={unused_name}").out, "the attach event")  # fmt: skip
    cli("kill", "-s", "TERM", unused_name)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (6, b"bye\n")
    cli("rm", unused_name)


def test_logs_follow_to_the_end(cli: DockerCLI, unused_name: str) -> None:
    script = "echo one; echo two >&2; sleep 0.3; echo three"
    cli("run", "-d", "--name", unused_name, "--network", "none", "busybox:test", "sh", "-c", script)
    done = cli("logs", "-f", unused_name)
    assert (done.out, done.err) == ("one\nthree\n", "two\n")
    stamped = cli("logs", "-t", "-n", "1", unused_name).out
    assert stamped.endswith("Z three\n")
    assert cli("logs", "--until", "2013-01-02T13:23:37Z", unused_name).out == ""
    cli("rm", unused_name)


def test_a_reader_that_goes_away(cli: DockerCLI, unused_name: str) -> None:
    """`sampan logs | head -1` ends quietly."""
    cli("run", "--name", unused_name, "--network", "none", "busybox:test", "seq", "200000")
    process = subprocess.Popen(
        [SAMPAN, "logs", unused_name], env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 141
    cli("rm", unused_name)


def test_id_file_and_detached(cli: DockerCLI, unused_name: str, tmp_path: object) -> None:
    path = f"{tmp_path}/id"
    done = cli("run", "-d", "--cidfile", path, "--name", unused_name, "--network", "none", "busybox:test", "true")  # fmt: skip
    with open(path) as file:
        assert file.read() == done.line
    assert len(done.line) == 64
    assert cli("wait", unused_name).line == "0"
    cli("rm", unused_name)


def test_a_container_of_the_same_name(cli: DockerCLI, unused_name: str) -> None:
    cli("create", "--name", unused_name, "busybox:test")
    done = cli.fails("run", "--name", unused_name, "busybox:test")
    assert done.code == 125
    assert done.err.startswith("sampan: Error response from daemon: Conflict. The container name")
    assert done.err.count("\n") == 1
    cli("rm", unused_name)
