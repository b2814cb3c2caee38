"""What the command line does beyond docker's: start the engine, stop it, enter a container without it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sampan.linux.cgroups.manager import open_cgroup
from support.command import Result, run
from support.waiting import wait_for

pytestmark = pytest.mark.root

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
# Seen inside the image host too, where a virtual environment below /tmp is not.
PYTHON = os.path.realpath(sys.executable)


class Machine:
    """An engine's roots of their own, as the environment names them; nothing runs there yet."""

    def __init__(self, directory: str, token: str) -> None:
        self.exec_root = f"{directory}/exec"
        self.data_root = f"{directory}/data"
        self.cgroup_parent = f"/own-{token}"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "SAMPAN_EXEC_ROOT": self.exec_root,
            "SAMPAN_DATA_ROOT": self.data_root,
            "SAMPAN_DAEMON_OPTIONS": f"--bridge none --cgroup-parent {self.cgroup_parent}",
        }

    def __call__(self, *arguments: str, check: bool = True, stdin: str | None = None) -> Result:
        return run([SAMPAN, *arguments], env=self.environ, check=check, stdin=stdin)

    def pid(self) -> int:
        with open(f"{self.exec_root}/sampand.pid") as file:
            return int(file.read())


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that whoever inherited it has not collected yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def machine(session_directory: str, session_token: str) -> Iterator[Machine]:
    directory = f"{session_directory}/own-{os.urandom(3).hex()}"
    os.mkdir(directory)
    machine = Machine(directory, session_token + secrets.token_hex(1))
    yield machine
    if os.path.exists(f"{machine.data_root}/engine.db"):
        identifiers = machine("ps", "-aq").out.split()
        if identifiers:
            machine("rm", "-f", *identifiers)
        machine("daemon", "stop")
    open_cgroup(machine.cgroup_parent).delete()
    shutil.rmtree(directory)


def test_an_engine_is_started_and_stopped(machine: Machine) -> None:
    """The first command starts one and says so; the next finds it; `daemon stop` ends it."""
    first = machine("ps", "-q")
    assert first.err == (
        f"sampan: no engine at unix://{machine.exec_root}/sampan.sock, starting one\n"
    )
    assert machine("ps").err == ""
    pid = machine.pid()
    assert os.getsid(pid) == pid, "it must not end with the terminal"
    assert (
        machine("daemon", "stop").out == f"engine stopped (pid {pid}); running containers go on\n"
    )
    assert has_ended(pid)
    again = machine("daemon", "stop", check=False)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith("no engine is running")


def test_two_at_once_start_one(machine: Machine) -> None:
    processes = [
        subprocess.Popen([SAMPAN, "ps", "-q"], env=machine.environ, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    told = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert [code for _, code in told] == [0, 0, 0, 0], told


def test_none_is_started_elsewhere(machine: Machine) -> None:
    """Not at an address that the user gave, and not where it is forbidden."""
    machine.environ["SAMPAN_AUTOSTART"] = "0"
    done = machine("ps", check=False)
    assert done.code == 1 and "Cannot connect" in done.err and "SAMPAN_AUTOSTART" in done.err
    del machine.environ["SAMPAN_AUTOSTART"]
    done = machine("-H", f"unix://{machine.exec_root}/other.sock", "ps", check=False)
    assert done.code == 1 and "Cannot connect" in done.err
    assert not os.path.exists(f"{machine.exec_root}/sampand.pid")


def test_an_engine_that_cannot_start_says_why(machine: Machine) -> None:
    machine.environ["SAMPAN_DAEMON_OPTIONS"] = "--no-such-option"
    done = machine("ps", check=False)
    assert done.code == 1
    assert "no-such-option" in done.err


def test_entering_a_container(machine: Machine) -> None:
    """All namespaces are joined; the status, a missing command and the default shell are as said."""
    machine("run", "-d", "--name", "cc", "--hostname", "inside", "--network", "none", "-e", "MARK=yes", "host", "sleep", "1000")  # fmt: skip
    assert machine("enter", "cc", "hostname").line == "inside"
    assert "sleep" in machine("enter", "cc", "cat", "/proc/1/cmdline").out
    assert machine("enter", "cc", "sh", "-c", "echo $MARK").line == "yes"
    links = machine("enter", "cc", "sh", "-c", "cd /proc/self/ns; readlink mnt pid ipc uts net").out
    pid = machine("inspect", "-f", "{{.State.Pid}}", "cc").line
    theirs = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "pid", "ipc", "uts", "net")]
    assert links.split() == theirs
    assert machine("enter", "cc", "sh", "-c", "exit 7", check=False).code == 7
    assert machine("enter", "cc", "sh", "-c", "kill -9 $$", check=False).code == 137
    missing = machine("enter", "cc", "nosuch", check=False)
    assert (missing.code, missing.err) == (
        127,
        'sampan: exec: "nosuch": executable file not found in $PATH\n',
    )
    assert machine("enter", "cc", "/etc", check=False).code == 126
    assert machine("enter", "cc", stdin="echo shell; exit 3", check=False).out == "shell\n"
    assert machine("enter", "nope", check=False).code == 1
    machine("create", "--name", "dd", "host", "true")
    stopped = machine("enter", "dd", check=False)
    assert (stopped.code, stopped.err) == (1, "container dd is not running\n")


def test_entering_without_the_engine(machine: Machine) -> None:
    """The engine is killed; name, ID and prefix still lead into the container."""
    identifier = machine(
        "run", "-d", "--name", "cc", "--network", "none", "host", "sleep", "1000"
    ).line
    machine("create", "--name", "stopped", "host", "true")
    engine = machine.pid()
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: has_ended(engine), "the engine to end")
    for name in ("cc", identifier, identifier[:7]):
        assert machine("enter", name, "hostname").line == identifier[:12]
    assert machine("enter", "nope", check=False).err == "No such container: nope\n"
    assert machine("enter", "stopped", check=False).err == "container stopped is not running\n"
    assert machine.pid() == engine, "enter starts no engine"


def test_a_run_outlives_the_engine(machine: Machine) -> None:
    """The engine is killed under a `run`: no output is lost, and the next engine tells the status."""
    machine("ps")
    process = subprocess.Popen(
        [SAMPAN, "run", "--name", "cc", "--network", "none", "-i", "host", "sh", "-c", "echo up; read x; echo got $x; exit 9"],
        env=machine.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.kill(machine.pid(), signal.SIGKILL)
    out, err = process.communicate(b"this\n", timeout=60)
    assert (process.returncode, out) == (9, b"got this\n"), err
    assert b"starting one" in err


def test_the_host_interpreter_cannot_be_replaced(machine: Machine) -> None:
    """CVE-2019-5736: a command that leads back to the runtime's own program cannot write to it."""
    machine("run", "-d", "--name", "cc", "--network", "none", "host", "sleep", "1000")
    machine("exec", "cc", "ln", "-sf", "/proc/self/exe", "/usr/local/bin/trap")
    script = "import os; os.open('/proc/self/exe', os.O_WRONLY)"
    done = machine("enter", "cc", "trap", "-I", "-S", "-c", script, check=False)
    assert done.code == 1
    assert "Read-only file system" in done.err or "Text file busy" in done.err, done


def test_entering_stays_within_the_limits(machine: Machine) -> None:
    """The command is in the container's cgroup; a paused one would freeze it."""
    machine("run", "-d", "--name", "cc", "--network", "none", "--pids-limit", "20", "host", "sleep", "1000")  # fmt: skip
    script = "sleep 1000 & echo $!; wait"
    process = subprocess.Popen(
        [SAMPAN, "enter", "cc", "sh", "-c", script],
        env=machine.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        assert "sleep" in machine("top", "cc", "-o", "pid,args").out
        forks = machine(
            "enter", "cc", "sh", "-c", "for i in $(seq 40); do sleep 5 & done", check=False
        )
        assert "fork" in forks.err.lower() or "resource" in forks.err.lower()
        pid = int(machine("inspect", "-f", "{{.State.Pid}}", "cc").line)
        with (
            open(f"/proc/{pid}/cgroup") as container,
            open(f"/proc/{process.pid}/cgroup") as outside,
        ):
            theirs = container.read()
            assert outside.read() != theirs, "who carries is not limited"
        inside = [
            line
            for line in machine("enter", "cc", "cat", "/proc/self/cgroup").out.split("\n")
            if "pids" in line
        ]
        own = [
            line
            for line in machine("exec", "cc", "cat", "/proc/self/cgroup").out.split("\n")
            if "pids" in line
        ]
        assert inside == own
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        process.stdout.close()
    machine("pause", "cc")
    paused = machine("enter", "cc", "true", check=False)
    assert (paused.code, paused.err) == (1, "container cc is paused, unpause it first\n")
    machine("unpause", "cc")


def test_entering_confined(machine: Machine) -> None:
    """What the container's own processes have, also when the engine is dead; without it, all."""
    machine("run", "-d", "--name", "cc", "--network", "none", "host", "sleep", "1000")
    show = ("grep", "-E", "^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):", "/proc/self/status")
    own = machine("exec", "cc", *show).out
    assert "NoNewPrivs:\t0" in own
    free = machine("enter", "cc", *show).out
    assert "Seccomp:\t0" in free and free != own
    confined = own.replace("NoNewPrivs:\t0", "NoNewPrivs:\t1")
    assert machine("enter", "--confined", "cc", *show).out == confined
    denied = machine(
        "enter", "--confined", "cc", "mount", "-t", "tmpfs", "none", "/tmp", check=False
    )
    assert denied.code != 0
    engine = machine.pid()
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: has_ended(engine), "the engine to end")
    assert machine("enter", "--confined", "cc", *show).out == confined
    missing = machine("enter", "--confined", "cc", "nosuch", check=False)
    assert missing.code == 127


def test_entering_leaves_the_callers_terminal_alone(machine: Machine) -> None:
    """The command has a terminal, and it is another one; not even /dev/tty leads to the caller's."""
    machine("run", "-d", "--name", "cc", "--network", "none", "host", "sleep", "1000")
    master, slave = os.openpty()
    ours = os.fstat(slave)
    type_in = (
        "import fcntl, os, sys; fd = os.open('/dev/tty', os.O_RDWR); st = os.fstat(0);"
        "print('device', st.st_dev, st.st_ino, os.isatty(0), os.getsid(0));"
        "[fcntl.ioctl(fd, 0x5412, bytes([b])) for b in b'typed']"
    )
    process = subprocess.Popen(
        [SAMPAN, "enter", "cc", PYTHON, "-I", "-S", "-c", type_in],
        env=machine.environ, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, 0x540E, 0) and None,
    )  # fmt: skip
    output = b""
    try:
        assert process.wait(timeout=60) == 0
        os.set_blocking(master, False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(master, 4096):
                output += data
        device, inode, terminal = output.split(b"device ")[1].split()[:3]
        assert terminal == b"True"
        assert (int(device), int(inode)) != (ours.st_dev, ours.st_ino)
        os.set_blocking(slave, False)
        with pytest.raises(BlockingIOError):
            os.read(slave, 100)
    finally:
        process.kill()
        os.close(master)
        os.close(slave)


def test_entering_takes_no_descriptor_along(machine: Machine) -> None:
    """Neither to the command nor for a link of the container's that leads through one."""
    leaked = os.open("/bin", os.O_RDONLY)
    link = f"/proc/self/fd/{leaked}/sh"
    machine("run", "-d", "--name", "cc", "--network", "none", "host", "sleep", "1000")
    machine("exec", "cc", "ln", "-sf", link, "/usr/local/bin/trap")
    try:
        done = [
            subprocess.run(
                [SAMPAN, "enter", "cc", *command],
                env=machine.environ, stdin=subprocess.DEVNULL, capture_output=True,
                pass_fds=[leaked], timeout=60, check=False,
            )
            for command in (["ls", "/proc/self/fd"], ["trap", "-c", "echo out"])
        ]  # fmt: skip
    finally:
        os.close(leaked)
    assert done[0].stdout.split() == [b"0", b"1", b"2", b"3"]
    assert (done[1].returncode, done[1].stdout) == (127, b"")
