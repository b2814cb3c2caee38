"""What a container that may trace (CAP_SYS_PTRACE) sees of a process that enters it.

It walks through /proc/PID/root, /proc/PID/cwd and /proc/PID/fd/N of whatever its PID namespace shows,
from the process's very first moment.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
from typing import Any

import pytest

from sampan.errors import RuntimeFailure
from sampan.linux import process as linux_process
from sampan.linux import vfork
from sampan.runtime import process

pytestmark = [pytest.mark.root, pytest.mark.vm]

Bundle = Any

_HAMMER = """
touch /started
while :; do
    for p in /proc/[0-9]*; do
        for d in $p/root $p/cwd $p/fd/*; do
            if [ -e $d/$1 ] || [ -e $d/../../../../../../$1 ]; then
                echo $d >> /found
            fi
        done
    done
done
"""
_EXECS = 40  # found within 12 when processes were cloned before they joined the mount namespace


def _wait_for(path: str) -> None:
    for _ in range(100_000):
        if os.path.exists(path):
            return
        os.sched_yield()
    pytest.fail(f"no {path}")


@pytest.mark.parametrize("helper", [False, True])
def test_tracer_never_sees_the_machine(bundle: Bundle, helper: bool) -> None:
    container = _start_tracer(bundle)
    for _ in range(_EXECS):
        if helper:
            _execute_from_helper(bundle, container)
        else:
            bundle.execute(container, "true")
    assert _found(container) == ""


def test_tracer_of_a_shared_pid_namespace(bundle: Bundle, lower: str) -> None:
    """The same for the first process of a container that joins the tracer's PID namespace."""
    tracer = _start_tracer(bundle)
    second = type(bundle)(lower, f"{bundle.path}/second", f"{bundle.name}-2")
    second.namespace("pid", f"/proc/{tracer.pid}/ns/pid")
    source = f"{bundle.path}/source"
    with open(source, "w") as file:
        file.write("bound")
    second.mount("/proc/uptime", "bind", source, "bind")
    for _ in range(_EXECS):
        got = second.run("cat", "/proc/1/comm", "/proc/uptime")
        assert got.out == "sh\nbound", got
    assert _found(tracer) == ""


def test_terminal_in_a_shared_pid_namespace(bundle: Bundle, lower: str) -> None:
    first = bundle.start("sleep", "1000")
    second = type(bundle)(lower, f"{bundle.path}/second", f"{bundle.name}-2")
    second.namespace("pid", f"/proc/{first.pid}/ns/pid")
    second.process["terminal"] = True
    container = second.start("sh", "-c", "tty; echo on the console >/dev/console", stdio=None)
    with open(container.console_fd, "rb", buffering=0, closefd=False) as terminal:
        assert _read_all(terminal) == b"/dev/pts/0\r\non the console\r\n"
    assert second.end(container) == 0


def _read_all(terminal: io.FileIO) -> bytes:
    data = b""
    while True:
        try:
            data += terminal.read(1000)
        except OSError as error:
            assert error.errno == errno.EIO
            return data


def _start_tracer(bundle: Bundle) -> Any:
    for names in bundle.process["capabilities"].values():
        names.append("CAP_SYS_PTRACE")
    marker = f"{bundle.path}/marker"
    open(marker, "w").close()
    container = bundle.start("sh", "-c", _HAMMER, "hammer", marker.lstrip("/"))
    _wait_for(f"/proc/{container.pid}/root/started")
    return container


def _found(container: Any) -> str:
    try:
        with open(f"/proc/{container.pid}/root/found") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _execute_from_helper(bundle: Bundle, container: Any) -> None:
    """As the shim does it: a process that ends afterwards, and whose parent gets the child."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    directory = os.open("/", os.O_PATH | os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        try:
            linux_process.clone_for_parent()
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            made = process.execute(
                container.pid,
                {**bundle.process, "args": ["true"]},
                config=bundle.config,
                stdio=(null, null, null),
                cgroup=container.cgroup,
            )
            os.write(writer, str(made.pid).encode())
        finally:
            os._exit(0)
    os.close(directory)
    os.close(writer)
    os.waitpid(helper, 0)
    pid = int(os.read(reader, 20))
    os.close(reader)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("helper", [False, True])
def test_first_moment(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, helper: bool) -> None:
    """The same, without luck: what the process has before its first own step."""
    container = bundle.start("sleep", "1000")
    inside = os.stat(f"/proc/{container.pid}/root")
    namespaces = {
        kind: os.readlink(f"/proc/{container.pid}/ns/{kind}")
        for kind in ("mnt", "pid", "net", "ipc", "uts")
    }

    def report(entry: Any) -> None:
        wrong = []
        for path in ("/", "."):
            if not os.path.samestat(os.stat(path), inside):
                wrong.append(path)
        wrong += [
            kind
            for kind, link in namespaces.items()
            if os.readlink(f"/proc/self/ns/{kind}") != link
        ]
        wrong += [f"fd {fd}" for fd in range(3, 64) if _leads_out(fd)]
        linux_process.install_stdio(entry.settler.stdio)
        os.write(1, repr(wrong).encode())
        os._exit(0)

    monkeypatch.setattr(process, "_run", report)
    monkeypatch.setattr(vfork, "available", lambda: False)  # else no code of ours runs in it
    reader, writer = os.pipe2(os.O_CLOEXEC)
    directory = os.open("/", os.O_PATH | os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            if helper:
                linux_process.clone_for_parent()
            process.execute(
                container.pid,
                {**bundle.process, "args": ["true"]},
                config=bundle.config,
                stdio=(writer, writer, writer),
                cgroup=container.cgroup,
            )
        except RuntimeFailure:
            pass  # it never became the program
        finally:
            os._exit(0)
    os.close(directory)
    os.close(writer)
    os.waitpid(child, 0)
    got = os.read(reader, 1000)
    os.close(reader)
    if helper:
        os.waitpid(-1, 0)
    assert got == b"[]"


def _leads_out(fd: int) -> bool:
    """Is it a directory with a way up, or one to write to?"""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if not os.path.samestat(os.stat("..", dir_fd=fd), status):
        return True
    return not os.statvfs(fd).f_flag & os.ST_RDONLY


def test_sigkill_of_the_stage_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    container = bundle.start("sleep", "1000")
    monkeypatch.setattr(process, "_join", lambda entry, sock: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeFailure, match="ended early"):
        bundle.execute(container, "true")
