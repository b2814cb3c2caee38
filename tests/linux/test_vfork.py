"""Children that share this process's memory until they have become a program."""

from __future__ import annotations

import errno
import os

import pytest

from sampan.linux import process, vfork
from sampan.linux import syscalls as sys

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(not vfork.available(), reason="no code for this machine"),
]


def call(path: str, *words: str) -> tuple[str, int, *tuple[object, ...]]:
    argv = [word.encode() for word in (path, *words)]
    return "execve", sys.SYS_execve, path.encode(), vfork.words(argv), vfork.words([b"A=1", b"A=2"])


def test_becomes_the_program_after_its_calls() -> None:
    reader, writer = os.pipe()
    script = "env; cut -d' ' -f6 /proc/$$/stat; echo $$"
    child = vfork.clone(
        [
            ("setsid", sys.SYS_setsid),
            ("dup2", 33, writer, 1),
            call("/bin/sh", "-c", script),
        ]
    )
    os.close(writer)
    with open(reader, encoding="ascii") as output:
        lines = output.read().splitlines()
    assert child.failed is None
    assert "A=2" in lines
    assert lines[-2:] == [str(child.pid)] * 2
    assert os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED).si_pid == child.pid
    os.close(child.pidfd)


@pytest.mark.parametrize(
    ("calls", "name", "number"),
    [
        ([call("/nosuch")], "execve", errno.ENOENT),
        ([call("/etc/passwd")], "execve", errno.EACCES),
        ([("setsid", sys.SYS_setsid), ("close", 3, 9999), call("/bin/true")], "close", errno.EBADF),
    ],
)
def test_first_failing_call_ends_it(
    calls: list[tuple[str, int, *tuple[object, ...]]], name: str, number: int
) -> None:
    child = vfork.clone(calls)
    assert child.failed is not None
    assert (child.failed[0], child.failed[1].errno) == (name, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 127
    os.close(child.pidfd)


def test_no_child() -> None:
    with pytest.raises(OSError, match="clone3") as caught:
        vfork.clone([call("/bin/true")], flags=sys.CLONE_NEWUSER | 0x200)  # CLONE_FS
    assert caught.value.errno == errno.EINVAL


def test_child_of_the_parent() -> None:
    middle = os.fork()
    if middle == 0:
        process.clone_for_parent()
        try:
            child = process.clone_program([call("/bin/sh", "-c", "exit 7")])
            os._exit(child.failed is not None)
        finally:
            os._exit(99)
    codes = {os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)}
    assert codes == {0, 7}
