"""Further processes in a running container."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from sampan.errors import RuntimeFailure
from sampan.linux import pidfd, vfork
from sampan.runtime import process

pytestmark = [pytest.mark.root, pytest.mark.vm]

Bundle = Any


@pytest.fixture(params=["shared", "copied"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the process begins: on the memory of the one that makes it, or on a copy."""
    if request.param == "copied":
        monkeypatch.setattr(vfork, "available", lambda: False)
    elif not vfork.available():
        pytest.skip("no code for this machine")
    return str(request.param)


def test_starts_clean(bundle: Bundle) -> None:
    """No signal ignored or blocked, a session of its own, the capabilities and the filter asked for."""
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat", "vfork"], "action": "SCMP_ACT_ERRNO"}],
    }
    container = bundle.start("sleep", "1000")
    show = "grep -E '^(Sig(Blk|Ign)|CapEff|CapBnd|Seccomp)' /proc/self/status; mkdir /tmp/x; cut -d' ' -f6 /proc/$$/stat"
    got = bundle.execute(container, "sh", "-c", show)
    fields = dict(line.split(":\t") for line in got.lines if ":\t" in line)
    assert fields["SigBlk"] == fields["SigIgn"] == "0" * 16
    assert fields["Seccomp"] == "2"
    assert fields["CapEff"] == fields["CapBnd"]
    assert int(got.lines[-1]) > 1
    assert not os.path.exists(f"{bundle.path}/upper/tmp/x")


@pytest.mark.parametrize("privileges", [False, True])
def test_filter_for_an_ordinary_user(bundle: Bundle, privileges: bool) -> None:
    """Without no_new_privs loading it takes CAP_SYS_ADMIN, of which nothing stays."""
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    container = bundle.start("sleep", "1000")
    got = bundle.execute(
        container,
        *("grep", "-E", "^(CapPrm|CapEff|Seccomp|NoNewPrivs):", "/proc/self/status"),
        user={"uid": 1000, "gid": 1000},
        noNewPrivileges=privileges,
    )
    fields = dict(line.split(":\t") for line in got.lines)
    assert fields["CapPrm"] == fields["CapEff"] == "0" * 16
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", str(int(privileges)))


def test_joins_every_namespace_and_the_cgroup(bundle: Bundle) -> None:
    bundle.namespace("time")
    container = bundle.start("sleep", "1000")
    got = bundle.execute(container, "sh", "-c", "readlink /proc/self/ns/* /proc/1/ns/* | sort")
    assert len(set(got.lines)) * 2 == len(got.lines) or len(set(got.lines)) == 9
    assert container.cgroup is not None
    sleeper = process.execute(
        container.pid,
        {**bundle.process, "args": ["sleep", "1000"]},
        config=bundle.config,
        stdio=(0, 1, 2),
        cgroup=container.cgroup,
    )
    assert sleeper.pid in container.cgroup.processes()
    pidfd.kill_and_reap(sleeper.pid, sleeper.pidfd)
    os.close(sleeper.pidfd)


def test_own_namespace_of_the_caller_is_as_before(bundle: Bundle) -> None:
    container = bundle.start("sleep", "1000")
    before = os.readlink("/proc/self/ns/pid_for_children")
    bundle.execute(container, "true")
    assert os.readlink("/proc/self/ns/pid_for_children") == before


def test_user_namespace(bundle: Bundle) -> None:
    bundle.map_ids()
    container = bundle.start("sleep", "1000")
    got = bundle.execute(container, "sh", "-c", "id -u; cat /proc/self/uid_map; touch /made")
    assert got.lines[0] == "0"
    assert os.stat(f"{bundle.path}/upper/made").st_uid == 100000


def test_process_of_its_own(bundle: Bundle) -> None:
    """User, directory, environment and capabilities are the exec's, not init's."""
    container = bundle.start("sleep", "1000")
    got = bundle.execute(
        container,
        "sh",
        "-c",
        "id -u; pwd; echo $X $HOME; grep CapEff /proc/self/status",
        user={"uid": 1000, "gid": 1000},
        cwd="/home/user",
        env=["PATH=/bin", "X=y"],
    )
    assert got.lines == ["1000", "/home/user", "y /home/user", "CapEff:\t0000000000000000"]


def test_limits_are_the_containers(bundle: Bundle) -> None:
    """As under runc, unless the process names its own: else an exec would have the machine's."""
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}]
    container = bundle.start("sleep", "1000")
    show = ("sh", "-c", "ulimit -Sn; ulimit -Hn")
    assert bundle.execute(container, *show, rlimits=None).lines == ["77", "78"]
    own = [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]
    assert bundle.execute(container, *show, rlimits=own).lines == ["50", "60"]


def test_terminal(bundle: Bundle) -> None:
    container = bundle.start("sleep", "1000")
    raw = {
        **bundle.process,
        "args": ["sh", "-c", "tty; stty size; : </dev/tty && echo controlling"],
        "terminal": True,
    }
    raw["consoleSize"] = {"height": 12, "width": 34}
    done = process.execute(container.pid, raw, config=bundle.config, stdio=None)
    assert done.console_fd is not None
    data = b""
    while True:
        try:
            data += os.read(done.console_fd, 100)
        except OSError as error:
            assert error.errno == errno.EIO
            break
    assert data == b"/dev/pts/0\r\n12 34\r\ncontrolling\r\n"
    os.waitpid(done.pid, 0)
    os.close(done.pidfd)
    os.close(done.console_fd)


def test_no_descriptor_leaks(bundle: Bundle) -> None:
    container = bundle.start("sleep", "1000")
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        got = bundle.execute(container, "ls", "/proc/self/fd")
    finally:
        os.close(leaked)
    assert got.out.split() == ["0", "1", "2", "3"]


def test_preserved_descriptors(bundle: Bundle) -> None:
    container = bundle.start("sleep", "1000")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 3)
        process.execute(
            container.pid,
            {**bundle.process, "args": ["sh", "-c", "echo given >&3"]},
            config=bundle.config,
            stdio=(0, 1, 2),
            preserve_fds=1,
            die_with_parent=False,
        )
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 100) == b"given\n"
    os.close(reader)
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("changes", "stage", "number"),
    [
        ({"args": ["nosuch"]}, "exec", errno.ENOENT),
        ({"args": ["/etc/passwd"]}, "exec", errno.EACCES),
        ({"args": ["true"], "cwd": "/nosuch"}, "chdir", errno.ENOENT),
        ({"args": ["true"], "user": {"username": "nosuch"}}, "user", None),
    ],
)
def test_failures(bundle: Bundle, changes: dict[str, Any], stage: str, number: int | None) -> None:
    container = bundle.start("sleep", "1000")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeFailure) as caught:
        process.execute(
            container.pid,
            {**bundle.process, **changes},
            config=bundle.config,
            stdio=(0, 1, 2),
            cgroup=container.cgroup,
        )
    assert (caught.value.stage, caught.value.errno) == (stage, number)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert container.cgroup is not None
    assert container.cgroup.processes() == [container.pid]


def test_container_that_has_ended(bundle: Bundle) -> None:
    container = bundle.start("true")
    assert pidfd.ended(container.pidfd, 10)
    with pytest.raises(RuntimeFailure, match="stopped container"):
        bundle.execute(container, "true")


def test_exec_dies_with_its_parent(bundle: Bundle) -> None:
    container = bundle.start("sleep", "1000")
    reader, writer = os.pipe()
    shim = os.fork()
    if shim == 0:
        done = process.execute(
            container.pid,
            {**bundle.process, "args": ["sleep", "1000"]},
            config=bundle.config,
            stdio=(0, 1, 2),
        )
        os.write(writer, str(done.pid).encode())
        os.kill(os.getpid(), 9)
    os.close(writer)
    fd = os.pidfd_open(int(os.read(reader, 20)))
    os.close(reader)
    os.waitpid(shim, 0)
    assert pidfd.ended(fd, 10)
    os.close(fd)
