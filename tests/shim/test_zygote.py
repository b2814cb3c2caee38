"""The fork server: what it loads, what it keeps open, how it and its spare end."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.errors import RuntimeFailure, Unavailable
from sampan.shim import protocol
from sampan.shim.client import Zygote
from sampan.shim.protocol import Started
from shim.containers import Machine, until_ended

SOURCE = Path(__file__).parents[2] / "src"

# What the zygote's closure may have of the standard library: little, and nothing with threads or loops.
ALLOWED = {
    "__future__", "__main__", "_abc", "_codecs", "_collections", "_collections_abc", "_ctypes",
    "_frozen_importlib", "_frozen_importlib_external", "_functools", "_imp", "_io", "_json",
    "_operator", "_signal", "_socket", "_sre", "_stat", "_struct", "_thread", "_typing",
    "_warnings", "_weakref", "abc", "array", "binascii", "builtins", "codecs", "collections",
    "contextlib", "copyreg", "ctypes", "encodings", "enum", "errno", "fcntl", "functools", "gc",
    "genericpath", "io", "itertools", "json", "keyword", "marshal", "math", "operator", "os",
    "posix", "posixpath", "re", "reprlib", "resource", "select", "selectors", "signal", "socket", "stat",
    "struct", "sys", "termios", "time", "types", "typing", "warnings", "zipimport",
}  # fmt: skip


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def spare_of(machine: Machine) -> int:
    """The shim forked ahead, when it and its helper are there."""
    async with asyncio.timeout(30):
        while True:
            shims = {connection.shim_pid for connection in machine.connections}
            for child in set(children(machine.zygote.pid)) - shims:
                if children(child):
                    return child
            await asyncio.sleep(0.005)


def test_import_closure() -> None:
    """asyncio, logging, threading and the like are not in a process that forks all day."""
    code = (
        f"import sys; sys.path.append({str(SOURCE)!r}); import sampan.shim.zygote, json; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True
    )
    loaded = json.loads(output.stdout)
    assert {name.partition(".")[0] for name in loaded} - ALLOWED == {"sampan"}
    packages = {name.split(".")[1] for name in loaded if name.startswith("sampan.")}
    assert packages == {"errors", "jsontext", "linux", "logs", "runtime", "shim"}
    assert not [name for name in loaded if name in ("sampan.shim.client", "sampan.logs.json_file")]


@pytest.mark.root
async def test_it_keeps_nothing_of_the_daemons(machine: Machine) -> None:
    secret, other = socket.socketpair()
    os.set_inheritable(secret.fileno(), True)
    zygote = Zygote(run_directory=machine.run)
    await zygote.start()
    names = {
        os.readlink(f"/proc/{zygote.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{zygote.pid}/fd")
    }
    inode = os.fstat(secret.fileno()).st_ino
    await zygote.stop()
    secret.close()
    other.close()
    assert f"socket:[{inode}]" not in names


@pytest.mark.root
async def test_it_runs_from_a_readonly_interpreter(machine: Machine) -> None:
    """A container that gets hold of /proc/PID/exe cannot write the machine's Python (CVE-2019-5736)."""
    assert os.statvfs(f"/proc/{machine.zygote.pid}/exe").f_flag & os.ST_RDONLY


@pytest.mark.root
async def test_all_end_with_the_daemon(machine: Machine) -> None:
    """The end of its socket ends the zygote, its spare and the spare's helper; shims live on."""
    container = await machine.spawn("sleep", "1000")
    spare = await spare_of(machine)
    pids = [machine.zygote.pid, spare, *children(spare)]
    assert len(pids) == 3
    ends = [os.pidfd_open(pid) for pid in pids]
    await machine.zygote.stop()
    for end in ends:
        await until_ended(end)
    assert not container.exited.done()
    await container.signal(signal.SIGKILL)
    assert (await container.exited).exit_code == 137


@pytest.mark.root
async def test_spares_follow_the_requests(machine: Machine) -> None:
    """As many as were asked for lately, and one again when that is over."""

    async def spares(count: int) -> None:
        async with asyncio.timeout(30):
            while len(set(children(machine.zygote.pid)) - shims) != count:
                await asyncio.sleep(0.01)

    for _ in range(3):
        await machine.spawn("sleep", "1000")
    shims = {connection.shim_pid for connection in machine.connections}
    await spares(3)
    await spares(1)


@pytest.mark.root
async def test_killed_spare_is_replaced(machine: Machine) -> None:
    for _ in range(3):
        spare = await spare_of(machine)
        end = os.pidfd_open(spare)
        os.kill(spare, signal.SIGKILL)
        await until_ended(end)
        connection = await asyncio.wait_for(machine.spawn("true"), 30)
        assert (await connection.exited).exit_code == 0
    assert machine.restarts == []


@pytest.mark.root
async def test_killed_helper_is_replaced(machine: Machine) -> None:
    spare = await spare_of(machine)
    helper = children(spare)[0]
    end = os.pidfd_open(helper)
    os.kill(helper, signal.SIGKILL)
    await until_ended(end)
    connection = await machine.spawn("true")
    assert (await connection.exited).exit_code == 0


@pytest.mark.root
async def test_helper_killed_at_work_fails_one_start(machine: Machine) -> None:
    spare = await spare_of(machine)
    helper = children(spare)[0]
    os.kill(helper, signal.SIGSTOP)
    request = machine.request("true")
    start = asyncio.ensure_future(machine.start(request))
    while not os.path.exists(request.socket):  # the shim has begun, and waits for its helper
        await asyncio.sleep(0.005)
    os.kill(helper, signal.SIGKILL)
    with pytest.raises(RuntimeFailure, match="helper died"):
        await start
    connection = await machine.spawn("true")
    assert (await connection.exited).exit_code == 0


@pytest.mark.root
async def test_zygote_that_cannot_start(tmp_path: Path) -> None:
    zygote = Zygote(run_directory=str(tmp_path / "nope"))
    with pytest.raises(FileNotFoundError):
        await zygote.start()


async def test_spawn_without_a_zygote(tmp_path: Path) -> None:
    request = protocol.ShimRequest(id="x", directory="/x", socket="/x/s", config={})
    with pytest.raises(Unavailable):
        await Zygote(run_directory=str(tmp_path)).spawn(request)


# The protocol


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.mark.parametrize("size", [0, 1000, protocol.INLINE_LIMIT_BYTES, 5_000_000])
def test_messages_of_any_size(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, theirs = pair
    with ours, theirs:
        read, write = os.pipe()
        protocol.send(ours, {"type": "x", "text": "a" * size}, [read, write])
        received = protocol.receive(theirs)
        assert received is not None
        message, fds = received
        assert message == {"type": "x", "text": "a" * size}
        assert len(fds) == 2
        assert not any(os.get_inheritable(fd) for fd in fds)
        os.write(fds[1], b"it is the pipe")
        assert select.select([read], [], [], 1)[0]
        protocol.close_all([*fds, read, write])


def test_end_and_refusal_to_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with theirs:
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            protocol.receive(theirs)
        ours.close()
        assert protocol.receive(theirs) is None


def test_values_of_a_newer_peer() -> None:
    """Names that are not known are ignored, missing ones have defaults."""
    started = Started.from_dict(
        {"id": "x", "pid": 1, "shim_pid": 2, "started_at_ns": 3, "invented_later": True}
    )
    assert (started.pid, started.warnings, started.cgroup_path) == (1, (), "")
