"""Further processes in a container: their streams, signals, ends."""

import asyncio
import os
import signal
from typing import Any

import pytest

from sampan.errors import RuntimeFailure, Unavailable
from sampan.shim.client import ExecHandle, ExecRequest, ShimConnection, reconnect
from sampan.shim.protocol import CLOSED, DETACHED, ENDED
from shim.containers import FakeClient, Machine, oci_config

pytestmark = pytest.mark.root


def exec_request(*args: str, terminal: bool = False, **options: Any) -> ExecRequest:
    process = oci_config(args, terminal=terminal)["process"]
    return ExecRequest(id=f"exec-{args[-1][:20]}", process=process, terminal=terminal, **options)


async def run(
    connection: ShimConnection, client: FakeClient | None, *args: str, **options: Any
) -> ExecHandle:
    stream = client.stream if client is not None else None
    return await connection.exec(exec_request(*args, **options), stream)


async def code(handle: ExecHandle) -> int:
    return await asyncio.wait_for(handle.exited, 10)


@pytest.fixture
async def container(machine: Machine) -> ShimConnection:
    return await machine.spawn("sleep", "1000")


@pytest.mark.vm
async def test_streams_and_code(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    handle = await run(container, client, "sh", "-c", "echo out; echo err >&2; exit 4")
    assert handle.pid > 0
    assert await code(handle) == 4
    await client.read_all()
    assert client.streams() == (b"out\n", b"err\n")
    assert await client.ended() == ENDED
    assert container.execs == {}


async def test_it_is_in_the_container(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    await run(container, client, "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; echo $$")
    await client.read_all()
    assert client.streams()[0].startswith(b"sleep 1000 ")


async def test_input_and_its_end(machine: Machine, container: ShimConnection) -> None:
    client = machine.client(stdin=True)
    handle = await run(container, client, "cat")
    await client.send(b"x" * 3_000_000)
    client.sock.shutdown(1)
    await client.read_all()
    assert len(client.streams()[0]) == 3_000_000
    assert await code(handle) == 0


async def test_stalled_client_stops_the_process(
    machine: Machine, container: ShimConnection
) -> None:
    client = machine.client()
    handle = await run(container, client, "head", "-c", "30000000", "/dev/zero")
    ready, _ = await asyncio.wait({handle.exited}, timeout=0.3)
    assert not ready
    await client.read_all()
    assert len(client.streams()[0]) == 30_000_000
    assert await code(handle) == 0


async def test_process_goes_on_without_its_client(
    machine: Machine, container: ShimConnection
) -> None:
    client = machine.client(stdin=True)
    handle = await run(container, client, "sh", "-c", "echo a; sleep 0.3; seq 100000; exit 5")
    await client.read_until(b"a\n")
    client.close()
    assert await code(handle) == 5


async def test_detached(machine: Machine, container: ShimConnection) -> None:
    handle = await run(container, None, "sh", "-c", "seq 100000; exit 6")
    assert await code(handle) == 6


async def test_terminal(machine: Machine, container: ShimConnection) -> None:
    client = machine.client(stdin=True, raw=True)
    handle = await run(
        container,
        client,
        "sh",
        "-c",
        "stty size; trap 'stty size; exit 7' WINCH; echo ready; while true; do sleep 0.05; done",
        terminal=True,
        console_size=(30, 100),
    )
    await client.read_until(b"30 100\r\nready\r\n")
    await handle.resize(31, 101)
    await client.read_until(b"31 101\r\n")
    assert await code(handle) == 7


async def test_detach_keys(machine: Machine, container: ShimConnection) -> None:
    client = machine.client(stdin=True, raw=True, detach_keys=b"\x01x")
    handle = await run(container, client, "cat", terminal=True)
    await client.send(b"\x01x")
    await client.read_all()
    assert await client.ended() == DETACHED
    assert not handle.exited.done()
    await handle.signal(signal.SIGKILL)
    assert await code(handle) == 137


async def test_background_child_does_not_hold_the_end(
    machine: Machine, container: ShimConnection
) -> None:
    client = machine.client()
    handle = await run(container, client, "sh", "-c", "sleep 1000 & echo started")
    assert await code(handle) == 0
    await client.read_all()
    assert client.streams()[0] == b"started\n"


@pytest.mark.parametrize(("path", "errno"), [("/nope", 2), ("/etc/plain", 13), ("nope", 2)])
async def test_failure(machine: Machine, container: ShimConnection, path: str, errno: int) -> None:
    client = machine.client()
    with pytest.raises(RuntimeFailure) as failure:
        await run(container, client, path)
    assert (failure.value.stage, failure.value.errno) == ("exec", errno)
    client.stream.sock.send(b"the reason")
    client.stream.close()
    assert await client.read_all() == b"the reason"
    assert container.execs == {}
    handle = await run(container, None, "true")
    assert await code(handle) == 0


@pytest.mark.vm
async def test_kill_tree(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    handle = await run(
        container, client, "sh", "-c", "(sleep 1000 & sleep 1001) & sleep 1002 & echo up; wait"
    )
    await client.read_until(b"up\n")
    await handle.kill_tree()
    assert await code(handle) == 137
    async with asyncio.timeout(10):
        while living(container.pid) or living(container.shim_pid) != [container.pid]:
            await asyncio.sleep(0.005)


def living(pid: int) -> list[int]:
    """The children of a process that are not zombies: the container's `sleep` reaps nobody."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        found = [int(child) for child in file.read().split()]
    return [child for child in found if not is_zombie(child)]


def is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


async def test_many_at_once(machine: Machine, container: ShimConnection) -> None:
    requests = []
    for number in range(20):
        request = exec_request("sh", "-c", f"exit {number}")
        request.id = f"exec-{number}"
        requests.append(container.exec(request, None))
    handles = await asyncio.gather(*requests)
    assert [await code(handle) for handle in handles] == list(range(20))


@pytest.mark.parametrize("namespaces", [("pid", "mount"), ("mount",)])
async def test_ends_with_the_container(machine: Machine, namespaces: tuple[str, ...]) -> None:
    container = await machine.spawn("sleep", "1000", namespaces=namespaces)
    client = machine.client()
    handle = await run(container, client, "sh", "-c", "echo up; sleep 1000")
    await client.read_until(b"up\n")
    await container.signal(signal.SIGKILL)
    assert await code(handle) == 137
    await client.read_all()
    assert (await container.exited).exit_code == 137


async def test_next_daemon_finds_it(machine: Machine, container: ShimConnection) -> None:
    client = machine.client(stdin=True)
    first = await run(container, client, "sh", "-c", "read x; exit $x")
    await container.close()
    found = await reconnect(container.socket_path)
    machine.connections[-1] = found
    handle = found.execs[first.id]
    assert handle.pid == first.pid
    await client.send(b"8\n")
    assert await code(handle) == 8


async def test_after_the_shims_death(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    handle = await run(container, client, "sleep", "1000")
    os.kill(container.shim_pid, signal.SIGKILL)
    assert await code(handle) == 137
    await asyncio.wait_for(container.gone, 10)
    with pytest.raises(Unavailable):
        await run(container, machine.client(), "true")


async def test_nothing_piles_up_in_the_shim(machine: Machine, container: ShimConnection) -> None:
    """Execs that work, fail, are watched or not, and attached clients leave no descriptor behind."""

    async def round_trip() -> None:
        client, attached = machine.client(stdin=True), machine.client()
        handle = await run(container, client, "cat", terminal=True)
        await handle.signal(signal.SIGKILL)
        await code(handle)
        await client.read_all()
        await code(await run(container, None, "true"))
        with pytest.raises(RuntimeFailure):
            await run(container, machine.client(), "/nope")
        await container.attach(attached.stream)
        attached.close()
        assert await attached.ended() == CLOSED

    def open_files() -> int:
        return len(os.listdir(f"/proc/{container.shim_pid}/fd"))

    await round_trip()
    before = open_files()
    for _ in range(10):
        await round_trip()
    async with asyncio.timeout(5):
        while open_files() > before:  # a stream's end is told just before its socket is closed
            await asyncio.sleep(0.005)
