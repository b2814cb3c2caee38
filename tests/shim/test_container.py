"""A container through zygote and shim, on the real kernel: output, input, terminal, end."""

import asyncio
import json
import os
import select
import signal
from pathlib import Path

import pytest

from sampan.errors import NotFound, RuntimeFailure, Unavailable
from sampan.linux.cgroups.manager import open_cgroup
from sampan.logs.json_file import read_log
from sampan.shim import exit_record
from sampan.shim.client import ShimConnection, reconnect
from sampan.shim.protocol import CLOSED, DETACHED, ENDED, ExitStatus
from shim.containers import Machine

pytestmark = pytest.mark.root


def log_text(connection: ShimConnection, **options: bool) -> bytes:
    return b"".join(read_log(f"{connection.directory}/{connection.id}-json.log", **options))


async def ended(connection: ShimConnection) -> int:
    async with asyncio.timeout(30):
        return (await connection.exited).exit_code


# Output and the end


@pytest.mark.vm
async def test_output_goes_to_log_and_client(machine: Machine) -> None:
    client = machine.client()
    connection = await machine.spawn("sh", "-c", "echo out; echo err >&2", streams=[client.stream])
    assert connection.pid > 0
    assert connection.shim_pid > 0
    assert await ended(connection) == 0
    await client.read_all()
    assert client.streams() == (b"out\n", b"err\n")
    assert await client.ended() == ENDED
    assert log_text(connection, stderr=False) == b"out\n"
    assert log_text(connection, stdout=False) == b"err\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("exec sleep 0", 0)]
)
async def test_exit_is_recorded_before_it_is_told(machine: Machine, script: str, code: int) -> None:
    connection = await machine.spawn("sh", "-c", f"(exit 0); {script}", namespaces=("mount",))
    assert await ended(connection) == code
    record = exit_record.read(connection.directory)
    assert record is not None
    assert record.exit_code == code
    assert record.usage["peak_memory_bytes"] > 0


@pytest.mark.vm
async def test_nothing_is_left(machine: Machine) -> None:
    connection = await machine.spawn("true", streams=[])
    await ended(connection)
    await asyncio.wait_for(connection.gone, 30)
    assert not os.path.exists(connection.socket_path)
    assert not open_cgroup(connection.cgroup_path).exists()
    with pytest.raises(NotFound):
        await reconnect(connection.socket_path)


async def test_requests_after_the_end_are_no_errors(machine: Machine) -> None:
    """A kill that races with the end has what it wants; only an attach has to be told."""
    connection = await machine.spawn("true")
    await ended(connection)
    await connection.signal(signal.SIGKILL)
    await asyncio.wait_for(connection.gone, 30)
    await connection.signal(signal.SIGKILL)
    await connection.resize(10, 10)
    with pytest.raises(Unavailable):
        await connection.attach(machine.client().stream)


@pytest.mark.vm
async def test_memory_limit_kill_is_noted(machine: Machine) -> None:
    connection = await machine.spawn(
        "sh",
        "-c",
        "x=xxxxxxxx; while true; do x=$x$x; done",
        resources={"memory": {"limit": 8 << 20, "swap": 8 << 20}},
    )
    assert await ended(connection) == 137
    status = await connection.exited
    assert status.oom_killed


async def test_restart_under_the_same_id(machine: Machine) -> None:
    """Spawning again waits for the last run's cgroup to go, and forgets its exit."""
    request = machine.request("true")
    for _ in range(5):
        connection = await machine.start(request)
        assert await ended(connection) == 0


async def test_much_output_is_complete(machine: Machine) -> None:
    client = machine.client()
    connection = await machine.spawn("seq", "100000", streams=[client.stream])
    await client.read_all()
    assert await ended(connection) == 0
    expected = b"".join(b"%d\n" % number for number in range(1, 100001))
    assert client.streams()[0] == expected
    assert log_text(connection) == expected


async def test_stalled_client_loses_nothing(machine: Machine) -> None:
    """A client that does not read stops the process in the end, and gets all when it reads again."""
    stalled = machine.client()
    connection = await machine.spawn(
        "sh", "-c", "head -c 20000000 /dev/zero; echo done >&2", streams=[stalled.stream]
    )
    ready, _ = await asyncio.wait({connection.exited}, timeout=0.5)
    assert not ready, "the process should wait for its client"
    await stalled.read_all()
    assert await ended(connection) == 0
    out, err = stalled.streams()
    assert (len(out), err) == (20_000_000, b"done\n")


async def test_exit_does_not_wait_for_a_stalled_client(machine: Machine) -> None:
    """What fits the pipe and our buffer is kept for the client; the end is told at once."""
    stalled = machine.client()
    connection = await machine.spawn("head", "-c", "2000000", "/dev/zero", streams=[stalled.stream])
    assert await ended(connection) == 0
    await asyncio.wait_for(connection.gone, 30)
    await stalled.read_all()
    assert len(stalled.streams()[0]) == 2_000_000


async def test_client_that_vanishes_harms_nobody(machine: Machine) -> None:
    gone, stays = machine.client(), machine.client(stdin=True)
    connection = await machine.spawn(
        "sh", "-c", "echo a; read x; echo $x", open_stdin=True, streams=[gone.stream, stays.stream]
    )
    await stays.read_until(b"a\n")
    gone.close()
    await stays.send(b"b\n")
    await stays.read_all()
    assert stays.streams()[0] == b"a\nb\n"
    assert await ended(connection) == 0
    assert await gone.ended() == CLOSED


# Input


async def test_input_and_its_end(machine: Machine) -> None:
    client = machine.client(stdin=True, head=b"early ")
    connection = await machine.spawn(
        "cat", open_stdin=True, stdin_once=True, streams=[client.stream]
    )
    await client.send(b"late")
    await client.read_until(b"late")
    client.sock.shutdown(1)
    await client.read_all()
    assert client.streams()[0] == b"early late"
    assert await ended(connection) == 0


async def test_big_input_waits_for_the_process(machine: Machine) -> None:
    client = machine.client(stdin=True)
    connection = await machine.spawn(
        "sh", "-c", "cat | od -An -v -tx1 -w1000 | head -1 >/dev/null; cat >/dev/null; echo ok",
        open_stdin=True,
        stdin_once=True,
        streams=[client.stream],
    )  # fmt: skip
    await client.send(b"x" * 5_000_000)
    client.sock.shutdown(1)
    await client.read_until(b"ok")
    assert await ended(connection) == 0


async def test_input_stays_open_for_the_next_client(machine: Machine) -> None:
    """Without StdinOnce the end of one client's input ends that client only."""
    first = machine.client(stdin=True)
    connection = await machine.spawn("cat", open_stdin=True, streams=[first.stream])
    await first.send(b"one")
    await first.read_until(b"one")
    first.sock.shutdown(1)
    await first.read_all()
    second = machine.client(stdin=True)
    await connection.attach(second.stream)
    await second.send(b"two")
    await second.read_until(b"two")
    assert await first.ended() == CLOSED
    second.close()


# Terminal


@pytest.mark.vm
async def test_terminal(machine: Machine) -> None:
    """Raw output, the size from the start and after a resize, signals from keys."""
    client = machine.client(stdin=True, raw=True)
    connection = await machine.spawn(
        "sh",
        "-c",
        "stty size; trap 'stty size; exit 7' WINCH; echo ready; while true; do sleep 0.05; done",
        terminal=True,
        open_stdin=True,
        console_size=(33, 111),
        streams=[client.stream],
    )
    await client.read_until(b"33 111\r\nready\r\n")
    await connection.resize(40, 120)
    await client.read_until(b"40 120\r\n")
    assert await ended(connection) == 7
    await client.read_all()
    assert log_text(connection) == b"33 111\r\nready\r\n40 120\r\n"


async def test_detach_keys(machine: Machine) -> None:
    """The sequence may come in pieces; what only looks like it reaches the process."""
    client = machine.client(stdin=True, raw=True)
    connection = await machine.spawn(
        "sh", "-c", "stty raw -echo; echo go; exec od -An -tx1 -v -w2", terminal=True, open_stdin=True,
        streams=[client.stream],
    )  # fmt: skip
    await client.read_until(b"go")
    await client.send(b"\x10")
    await client.send(b"a\x10\x10")
    await client.read_until(b"10 61")
    await client.send(b"\x11")
    await client.read_all()
    assert await client.ended() == DETACHED
    assert not connection.exited.done()


# Failure


@pytest.mark.parametrize(
    ("args", "errno", "text"),
    [(["/nope"], 2, "no such file"), (["/etc/plain"], 13, "permission denied")],
)
async def test_failed_start_leaves_nothing(
    machine: Machine, args: list[str], errno: int, text: str
) -> None:
    client = machine.client()
    request = machine.request(*args)
    with pytest.raises(RuntimeFailure) as failure:
        await machine.start(request, [client.stream])
    assert failure.value.stage == "exec"
    assert failure.value.errno == errno
    assert text in failure.value.message
    assert await client.read_all() == b""
    assert not os.path.exists(request.socket)
    assert exit_record.read(request.directory) is None
    assert not open_cgroup(request.cgroup_path).exists()


async def test_log_that_cannot_be_opened(machine: Machine) -> None:
    request = machine.request("true")
    request.log_path = "/proc/nope"
    with pytest.raises(RuntimeFailure) as failure:
        await machine.start(request)
    assert (failure.value.stage, failure.value.path) == ("log", "/proc/nope")


async def test_lost_log_is_said_once_and_harms_nobody(machine: Machine) -> None:
    request = machine.request("sh", "-c", "read x; echo 1; read x; echo 2", open_stdin=True)
    request.log_path = "/dev/full"
    client = machine.client(stdin=True)
    connection = await machine.start(request, [client.stream])
    said: list[str] = []
    connection.on_log_lost = said.append
    await client.send(b"\n")
    await client.read_until(b"1\n")
    await client.send(b"\n")
    await client.read_all()
    assert await ended(connection) == 0
    assert client.streams()[0] == b"1\n2\n"
    assert said == ["No space left on device"]
    assert connection.log_error == said[0]


# The daemon's death and others'


async def test_next_daemon_finds_it(machine: Machine) -> None:
    connection = await machine.spawn(
        "sh", "-c", "echo one; read x; echo $x; read x", open_stdin=True
    )
    await connection.close()
    found = await reconnect(connection.socket_path)
    machine.connections[-1] = found
    assert (found.id, found.pid, found.shim_pid) == (
        connection.id,
        connection.pid,
        connection.shim_pid,
    )
    assert found.started_at_ns == connection.started_at_ns
    client = machine.client(stdin=True)
    await found.attach(client.stream)
    await client.send(b"two\n")
    await client.read_until(b"two\n")
    await found.signal(signal.SIGKILL)
    assert await ended(found) == 137
    assert log_text(found) == b"one\ntwo\n"


async def test_exit_without_a_daemon(machine: Machine) -> None:
    """Log and exit are complete although nobody was there to be told."""
    connection = await machine.spawn("sh", "-c", "sleep 0.2; echo late; exit 9")
    shim = os.pidfd_open(connection.shim_pid)
    await connection.close()
    machine.connections.clear()
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(shim, lambda: gone.done() or gone.set_result(None))
    await asyncio.wait_for(gone, 30)
    asyncio.get_running_loop().remove_reader(shim)
    os.close(shim)
    record = exit_record.read(connection.directory)
    assert record is not None
    assert record.exit_code == 9
    assert log_text(connection) == b"late\n"
    with pytest.raises(NotFound):
        await reconnect(connection.socket_path)


async def test_shim_survives_gentle_signals(machine: Machine) -> None:
    """At shutdown all get SIGTERM; the container's last words are still logged."""
    connection = await machine.spawn("sh", "-c", "read x; echo last words", open_stdin=True)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(connection.shim_pid, number)
    client = machine.client(stdin=True)
    await connection.attach(client.stream)
    await client.send(b"\n")
    assert await ended(connection) == 0
    assert log_text(connection) == b"last words\n"


async def test_container_in_anothers_namespaces(machine: Machine) -> None:
    """Joining namespaces by path goes another way through the runtime."""
    first = await machine.spawn("sleep", "1000")
    request = machine.request("sh", "-c", "read x; echo $x; cat /proc/1/cmdline", open_stdin=True)
    for row in request.config["linux"]["namespaces"]:
        if row["type"] in ("pid", "ipc"):
            row["path"] = f"/proc/{first.pid}/ns/{row['type']}"
    client = machine.client(stdin=True)
    second = await machine.start(request, [client.stream])
    await client.send(b"hi\n")
    await client.read_all()
    assert client.streams()[0] == b"hi\nsleep\x001000\x00"
    assert await ended(second) == 0


@pytest.mark.vm
@pytest.mark.parametrize("namespaces", [("mount", "pid"), ("mount",)])
async def test_killed_shim_takes_the_container_along(
    machine: Machine, namespaces: tuple[str, ...]
) -> None:
    connection = await machine.spawn("sh", "-c", "sleep 60 & sleep 61", namespaces=namespaces)
    init = os.pidfd_open(connection.pid)
    os.kill(connection.shim_pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        status = await connection.exited
        await connection.gone
    assert (status.exit_code, status.error) == (137, "shim died")
    assert select.select([init], [], [], 0)[0], "the first process has not ended"
    os.close(init)
    assert not os.path.exists(connection.socket_path)
    assert not open_cgroup(connection.cgroup_path).exists()


async def test_killed_zygote_is_replaced(machine: Machine) -> None:
    before = await machine.spawn("sleep", "60")
    old = machine.zygote.pid
    os.kill(old, signal.SIGKILL)
    after = await asyncio.wait_for(machine.spawn("true"), 30)
    assert machine.zygote.pid != old
    assert machine.restarts == [signal.SIGKILL]
    assert await ended(after) == 0
    assert not before.exited.done()
    await before.signal(signal.SIGKILL)
    assert await ended(before) == 137


async def test_zygote_killed_under_requests(machine: Machine) -> None:
    """Requests that no shim has begun are made again; each container starts exactly once."""
    requests = [machine.request("sh", "-c", "echo started; sleep 0.2") for _ in range(8)]
    tasks = [asyncio.create_task(machine.start(request)) for request in requests]
    await asyncio.sleep(0)
    os.kill(machine.zygote.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        connections = await asyncio.gather(*tasks)
    for connection in connections:
        assert await ended(connection) == 0
        assert log_text(connection) == b"started\n"


async def test_cancelled_spawn_is_killed(machine: Machine) -> None:
    request = machine.request("sleep", "60")
    task = asyncio.create_task(machine.zygote.spawn(request))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        while exit_record.read(request.directory) is None:
            await asyncio.sleep(0.01)


async def test_many_at_once(machine: Machine) -> None:
    connections = await asyncio.gather(*(machine.spawn("true") for _ in range(32)))
    assert [await ended(connection) for connection in connections] == [0] * 32


async def test_exit_record_is_json(machine: Machine) -> None:
    connection = await machine.spawn("true")
    await ended(connection)
    data = json.loads(Path(connection.directory, "exit.json").read_text())
    assert set(data) == set(ExitStatus.__slots__)
