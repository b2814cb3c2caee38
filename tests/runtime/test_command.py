"""The command `sampan-oci`: verbs, options, texts and exit codes of runc."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
from typing import Any

import pytest

from sampan.linux import pidfd, selfexec
from support.command import Terminal
from support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.vm]

Bundle = Any
Command = Any


def test_life(bundle: Bundle, oci: Command) -> None:
    """created → running → paused → running → stopped → gone, and what each refuses."""
    bundle.process["args"] = ["sleep", "1000"]
    assert oci("create", "--pid-file", f"{bundle.path}/pid", "one").code == 0
    state = json.loads(oci("state", "one").out)
    with open(f"{bundle.path}/pid") as file:
        assert state["pid"] == int(file.read())
    assert (state["status"], state["bundle"], state["id"]) == ("created", bundle.path, "one")
    assert "already exists" in oci("create", "one").err
    assert oci("start", "one").code == 0
    assert _status(oci) == "running"
    assert "cannot start an already running container" in oci("start", "one").err
    assert oci("pause", "one").code == 0
    assert _status(oci) == "paused"
    assert "paused" in oci("exec", "one", "true").err
    assert oci("resume", "one").code == 0
    assert "container not paused" in oci("resume", "one").err
    assert "that is not stopped: running" in oci("delete", "one").err
    assert oci("kill", "one", "KILL").code == 0
    wait_for(lambda: _status(oci) == "stopped", "the end of the container")
    assert "container not running" in oci("kill", "one", "TERM").err
    assert oci("delete", "one").code == 0
    got = oci("state", "one")
    assert (got.code, "container does not exist" in got.err) == (1, True)
    assert oci("delete", "--force", "one").code == 0


def _status(oci: Command) -> str:
    status: str = json.loads(oci("state", "one").out)["status"]
    return status


def test_run_gives_the_exit_code_and_leaves_nothing(bundle: Bundle, oci: Command) -> None:
    bundle.process["args"] = ["sh", "-c", "echo out; echo err >&2; exit 17"]
    got = oci("run", "one")
    assert (got.code, got.out, got.err) == (17, "out\n", "err\n")
    assert os.listdir(f"{bundle.path}/state") == []


def test_run_detached(bundle: Bundle, oci: Command) -> None:
    bundle.process["args"] = ["sleep", "1000"]
    assert oci("run", "--detach", "one").code == 0
    assert _status(oci) == "running"
    assert oci("delete", "-f", "one").code == 0


def test_run_passes_signals_on(bundle: Bundle, oci: Command) -> None:
    """A signal to the command reaches PID 1; its end by signal shows as 128 + number."""
    bundle.process["args"] = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done"]
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(oci("run", "--pid-file", "pid", "one")))
    thread.start()
    path = f"{bundle.path}/pid"
    wait_for(lambda: os.path.exists(path), "the pid file")
    with open(path) as file:
        pid = int(file.read())
    wait_for(lambda: _ignores_nothing(pid), "the trap")
    with open(f"/proc/{pid}/stat") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    os.kill(parent, 15)
    thread.join(30)
    assert done[0].code == 7


def _ignores_nothing(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        caught = next(line for line in file if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << 14)


def test_run_on_a_terminal(bundle: Bundle, oci: Command) -> None:
    bundle.process["args"] = ["sh", "-c", "tty; stty size; read x; echo got $x; exit 4"]
    bundle.process["terminal"] = True
    oci("list")
    argv = [sys.executable, "-m", "sampan.runtime.command", "--root", f"{bundle.path}/state"]
    with Terminal([*argv, "run", "--bundle", bundle.path, "one"], rows=40, columns=90) as terminal:
        terminal.expect("40 90")
        terminal.type("typed\r")
        terminal.expect("got typed")
        assert terminal.wait() == 4


def test_console_socket(bundle: Bundle, oci: Command) -> None:
    bundle.process["args"] = ["sh", "-c", "tty; sleep 1000"]
    bundle.process["terminal"] = True
    assert "without setting console socket" in oci("create", "one").err
    path = f"{bundle.path}/console.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert oci("create", "--console-socket", path, "one").code == 0
        connection, _ = listener.accept()
        with connection:
            name, fds, _, _ = socket.recv_fds(connection, 100, 1)
    assert name == b"/dev/ptmx"
    assert oci("start", "one").code == 0
    assert select.select(fds, [], [], 10)[0]
    assert os.read(fds[0], 100) == b"/dev/pts/0\r\n"
    os.close(fds[0])


def test_start_says_why_the_program_does_not_run(bundle: Bundle, oci: Command) -> None:
    path = f"{bundle.path}/rootfs/broken"
    with open(path, "wb") as file:
        file.write(b"\0\1\2")
    os.chmod(path, 0o755)
    bundle.process["args"] = ["/broken"]
    assert oci("create", "one").code == 0
    got = oci("start", "one")
    assert got.code == 1
    assert "exec /broken: exec format error" in got.err


def test_missing_program_and_the_log(bundle: Bundle, oci: Command) -> None:
    """The log is what containerd reads the reason from."""
    bundle.process["args"] = ["nosuch"]
    log = f"{bundle.path}/log"
    got = oci("--log", log, "--log-format", "json", "create", "one")
    assert got.code == 1
    text = 'unable to start container process: exec: "nosuch": executable file not found in $PATH'
    assert got.err == f"sampan-oci create failed: {text}\n"
    with open(log) as file:
        entry = json.loads(file.read().splitlines()[-1])
    assert (entry["level"], entry["msg"]) == ("error", f"sampan-oci create failed: {text}")
    assert json.loads(oci("list", "--format", "json").out) is None


def test_exec(bundle: Bundle, oci: Command) -> None:
    bundle.process["args"] = ["sleep", "1000"]
    assert oci("run", "-d", "one").code == 0
    got = oci("exec", "-e", "A=b", "--cwd", "/tmp", "-u", "1000:1000", "one", "sh", "-c",
              "echo $A; pwd; id -u; exit 6")  # fmt: skip
    assert (got.code, got.lines) == (6, ["b", "/tmp", "1000"])
    assert oci("exec", "one", "nosuch").code == 255
    raw = {**bundle.process, "args": ["sh", "-c", "echo from file; exit 3"]}
    with open(f"{bundle.path}/process.json", "w") as file:
        json.dump(raw, file)
    got = oci("exec", "--process", f"{bundle.path}/process.json", "one")
    assert (got.code, got.out) == (3, "from file\n")
    got = oci("exec", "--detach", "--pid-file", f"{bundle.path}/pid", "one", "sleep", "999")
    assert got.code == 0
    with open(f"{bundle.path}/pid") as file:
        pid = int(file.read())
    assert pid in json.loads(oci("ps", "--format", "json", "one").out)
    assert "sleep 999" in oci("ps", "one").out
    fd = os.pidfd_open(pid)
    assert oci("kill", "--all", "one", "9").code == 0
    assert pidfd.ended(fd, 10)
    os.close(fd)


def test_update(bundle: Bundle, oci: Command) -> None:
    bundle.process["args"] = ["sleep", "1000"]
    assert oci("run", "-d", "one").code == 0
    assert oci("update", "--pids-limit", "33", "--memory", "50m", "one").code == 0
    resources = json.dumps({"cpu": {"shares": 512}})
    assert oci("update", "--resources", "-", "one", stdin=resources).code == 0
    shown = oci(
        "exec", "one", "sh", "-c", "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max"
    )
    assert shown.out == "33\n"


def test_list(bundle: Bundle, oci: Command) -> None:
    bundle.process["args"] = ["sleep", "1000"]
    assert oci("create", "one").code == 0
    assert oci("list", "-q").out == "one\n"
    head, row = oci("list").lines
    assert head.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert row.split()[0] == "one"
    assert json.loads(oci("list", "-f", "json").out)[0]["status"] == "created"


def test_init_that_ended_before_start(bundle: Bundle, oci: Command) -> None:
    assert oci("create", "one").code == 0
    assert oci("kill", "one", "KILL").code == 0
    wait_for(lambda: _status(oci) == "stopped", "the end of init")
    assert "cannot start a container that has stopped" in oci("start", "one").err
    assert oci("delete", "one").code == 0


def test_concurrent_creates_of_one_id(bundle: Bundle, oci: Command) -> None:
    """One wins, the other is refused and disturbs nothing."""
    results: list[Any] = []
    oci("list")
    threads = [
        threading.Thread(target=lambda: results.append(oci("create", "one", save=False)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.code for result in results) == [0, 1]
    assert _status(oci) == "created"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "x" * 2000])
def test_names_that_are_none(oci: Command, name: str) -> None:
    got = oci("create", name)
    assert got.code == 1
    assert "invalid container ID format" in got.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--nosuch"], 1, "flag provided but not defined: -nosuch"),
        (["nosuch"], 3, "No help topic for 'nosuch'"),
        (["create", "--nosuch", "x"], 1, "flag provided but not defined: -nosuch"),
        (["create", "--bundle"], 1, "flag needs an argument: -bundle"),
        (["update", "--pids-limit", "x", "y"], 1, r"invalid value \"x\" for flag -pids-limit"),
        (["create", "--bundle", "/nosuch", "x"], 1, "/nosuch/config.json not found"),
    ],
)
def test_usage_errors(oci: Command, words: list[str], code: int, text: str) -> None:
    got = oci(*words)
    assert got.code == code
    assert text in got.err


def test_version_and_help(oci: Command) -> None:
    assert "spec: 1.2.0" in oci("--version").out
    for verb in ("create", "exec", "update"):
        assert verb in oci("--help").out
        assert "--" in oci(verb, "--help").out


def test_socket_activation(bundle: Bundle, oci: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    bundle.process["args"] = ["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID"]
    assert oci("run", "one").out == "1 1\n"


def test_init_runs_from_a_readonly_interpreter(bundle: Bundle, oci: Command) -> None:
    """While it waits, /proc/PID/exe of init is on a read-only mount: see CVE-2019-5736."""
    assert oci("create", "one").code == 0
    pid = json.loads(oci("state", "one").out)["pid"]
    assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY
    with pytest.raises(OSError, match=r"Read-only|Text file busy"):
        os.open(f"/proc/{pid}/exe", os.O_WRONLY)


def test_readonly_interpreter_runs() -> None:
    fd = selfexec.readonly_interpreter()
    assert not selfexec.interpreter_is_readonly()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        script = "import os; print(os.statvfs('/proc/self/exe').f_flag & os.ST_RDONLY)"
        os.execv(f"/proc/self/fd/{fd}", [sys.executable, "-I", "-S", "-c", script])
    os.close(writer)
    assert os.read(reader, 100) == b"1\n"
    os.close(reader)
    os.close(fd)
    os.waitpid(pid, 0)
