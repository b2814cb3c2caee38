"""Processes, namespaces, capabilities, pidfds and terminals on the running kernel."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable

import pytest

from sampan.linux import capabilities, namespaces, pidfd, process, pty, seqpacket
from sampan.linux import syscalls as sys
from support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.vm]


def test_clone_makes_namespaces_and_a_pidfd() -> None:
    reader, writer = os.pipe()
    pid, fd = process.clone(sys.CLONE_NEWPID | sys.CLONE_NEWUTS)
    if pid == 0:
        sys.sethostname(b"other")
        os.write(writer, f"{os.getpid()} {os.uname().nodename}".encode())
        os._exit(5)
    os.close(writer)
    assert os.read(reader, 100) == b"1 other"
    os.close(reader)
    assert pidfd.ended(fd, 10)
    assert not os.get_inheritable(fd)
    assert pidfd.exit_code(os.waitpid(pid, 0)[1]) == 5
    assert not pidfd.send_signal(fd, 15)
    os.close(fd)
    assert os.uname().nodename != "other"


def test_clone_that_fails_leaves_one_process() -> None:
    with pytest.raises(OSError, match="clone3: Invalid argument"):
        process.clone(1 << 62)
    assert os.getpid() == int(os.readlink("/proc/self"))


def test_exit_codes() -> None:
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), 9)
    assert pidfd.exit_code(os.waitpid(pid, 0)[1]) == 137


def test_a_process_and_its_start_time() -> None:
    assert pidfd.start_time(os.getpid()) > 0
    assert pidfd.state(os.getpid()) == "R"
    with pytest.raises(OSError, match="No such file"):
        pidfd.start_time(2**22 + 1)


def in_child(check: Callable[[], bool]) -> bool:
    """Does the check hold in a process of its own, that it may change as it likes?"""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


def test_limits() -> None:
    def check() -> bool:
        process.set_limit("RLIMIT_CORE", 4096, 8192)
        return _limit("Max core file size") == ["4096", "8192"]

    assert in_child(check)


def _limit(name: str) -> list[str]:
    with open("/proc/self/limits") as file:
        line = next(line for line in file if line.startswith(name))
    return line.removeprefix(name).split()[:2]


def test_stdio_may_be_any_descriptors() -> None:
    """Also 0, 1 and 2 in another order."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 0)
        process.install_stdio((1, 0, 0))
        os.write(1, b"to one")
        os.write(2, b"to two")
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"to oneto two"
    os.close(reader)


def test_default_signals() -> None:
    def check() -> bool:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(64, signal.SIG_IGN)
        for number in (32, 33):  # as some parents have it, past their C library
            ignore = (1).to_bytes(8, "little").ljust(32, b"\0")
            assert not sys.libc.syscall(sys.SYS_rt_sigaction, number, ignore, None, 8)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        process.default_signals()
        with open("/proc/self/status") as file:
            values = dict(line.split(":", 1) for line in file if line.startswith("Sig"))
        masks = [int(values[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")]
        return not any(masks)

    assert in_child(check)


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("", set()), ("3,3", {3})]
)
def test_lists_of_the_kernel(text: str, numbers: set[int]) -> None:
    assert process.parse_list(text) == numbers


def test_user_namespace_without_a_process() -> None:
    row = {"containerID": 0, "hostID": 12345, "size": 10}
    fd = namespaces.user_namespace([row], [row])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        sys.setns(fd, sys.CLONE_NEWUSER)
        with open("/proc/self/uid_map", "rb") as file:
            os.write(writer, file.read())
        os._exit(0)
    os.close(fd)
    os.close(writer)
    assert os.read(reader, 100).split() == [b"0", b"12345", b"10"]
    os.close(reader)
    os.waitpid(pid, 0)


def test_kinds_of_namespaces() -> None:
    assert set(namespaces.available()) <= set(namespaces.FLAGS)
    assert {"mount", "pid", "user"} <= set(namespaces.available())
    assert namespaces.same(os.getpid(), "self", "network")


def test_unknown_clock() -> None:
    with pytest.raises(ValueError, match="realtime"):
        namespaces.write_time_offsets({"realtime": {"secs": 1}})


def test_capabilities() -> None:
    assert capabilities.names_of(capabilities.mask(["CAP_KILL", "CAP_BPF"])) == [
        "CAP_KILL",
        "CAP_BPF",
    ]
    assert capabilities.unknown(["CAP_KILL", "CAP_ODD"]) == ["CAP_ODD"]
    assert len(capabilities.NAMES) >= capabilities.last() + 1
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("CapBnd"))
    assert capabilities.bounding() == int(line.split()[1], 16)


def test_capset_and_ambient() -> None:
    def check() -> bool:
        bits = capabilities.mask(["CAP_KILL", "CAP_CHOWN"])
        sys.capset(bits, bits, bits)
        capabilities.set_ambient(capabilities.mask(["CAP_KILL"]))
        with open("/proc/self/status") as file:
            values = dict(line.split(":\t") for line in file if line.startswith("Cap"))
        good = int(values["CapEff"], 16) == bits
        return good and int(values["CapAmb"], 16) == capabilities.mask(["CAP_KILL"])

    assert in_child(check)


def test_pseudoterminal() -> None:
    master, slave = pty.open_pair()
    pty.resize(master, 7, 9)
    assert pty.size(slave) == (7, 9)
    os.write(master, b"typed\n")
    assert os.read(slave, 100) == b"typed\n"
    os.close(slave)
    os.close(master)


def test_messages_with_descriptors() -> None:
    one, other = seqpacket.pair()
    reader, writer = os.pipe()
    seqpacket.send(one, b"take", (reader,))
    message, fds = seqpacket.receive(other)
    assert message == b"take"
    os.write(writer, b"x")
    assert os.read(fds[0], 1) == b"x"
    assert not os.get_inheritable(fds[0])
    one.close()
    assert seqpacket.receive(other) == (b"", [])
    other.close()
    for fd in (reader, writer, *fds):
        os.close(fd)


def test_sockets_of_long_paths(tmp_path: object) -> None:
    """sun_path ends at 107 bytes; ours do not."""
    directory = f"{tmp_path}/{'d' * 120}"
    os.mkdir(directory)
    listener = seqpacket.listen(f"{directory}/s")
    assert os.stat(f"{directory}/s").st_mode & 0o777 == 0o600
    client = seqpacket.connect(f"{directory}/s")
    server = seqpacket.accept(listener)
    seqpacket.send(client, b"hello")
    assert seqpacket.receive(server)[0] == b"hello"
    for sock in (client, server, listener):
        sock.close()
    with pytest.raises(ConnectionRefusedError):
        seqpacket.connect(f"{directory}/s")


def test_session_of_structures() -> None:
    """struct clone_args is as long as the kernel's first full version of it."""
    import ctypes

    assert ctypes.sizeof(sys.Clone) == struct.calcsize("=11Q")


def test_kill_and_reap() -> None:
    pid, fd = process.clone(0)
    if pid == 0:
        signal.pause()
    pidfd.kill_and_reap(pid, fd)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the process to be gone")
    os.close(fd)
