"""Further processes in a container: their streams, signals, ends."""

import asyncio
import os
import signal
from typing import Any

import pytest

from sampan.errors import RuntimeFailure, Unavailable
from sampan.linux.cgroups.manager import open_cgroup
from sampan.shim.client import ExecHandle, ExecRequest, ShimConnection, reconnect
from sampan.shim.protocol import CLOSED, DETACHED, ENDED
from shim.containers import FakeClient, Machine, oci_config, until_ended

pytestmark = pytest.mark.root


def exec_request(*args: str, terminal: bool = False, **options: Any) -> ExecRequest:
    process = oci_config(args, terminal=terminal)["process"]
    return ExecRequest(id=f"exec-{args[-1][:20]}", process=process, terminal=terminal, **options)


async def run(
    machine: Machine,
    container: ShimConnection,
    client: FakeClient | None,
    *args: str,
    **options: Any,
) -> ExecHandle:
    stream = client.stream if client is not None else None
    return await machine.zygote.exec(container, exec_request(*args, **options), stream)


async def code(handle: ExecHandle) -> int:
    return await asyncio.wait_for(handle.exited, 30)


@pytest.fixture
async def container(machine: Machine) -> ShimConnection:
    return await machine.spawn("sleep", "1000")


@pytest.mark.vm
async def test_streams_and_code(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    handle = await run(machine, container, client, "sh", "-c", "echo out; echo err >&2; exit 4")
    assert handle.pid > 0
    assert await code(handle) == 4
    await client.read_all()
    assert client.streams() == (b"out\n", b"err\n")
    assert await client.ended() == ENDED


async def test_it_is_in_the_container(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    await run(machine, container, client, "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; echo $$")
    await client.read_all()
    assert client.streams()[0].startswith(b"sleep 1000 ")


async def test_input_and_its_end(machine: Machine, container: ShimConnection) -> None:
    client = machine.client(stdin=True)
    handle = await run(machine, container, client, "cat")
    await client.send(b"x" * 3_000_000)
    client.sock.shutdown(1)
    await client.read_all()
    assert len(client.streams()[0]) == 3_000_000
    assert await code(handle) == 0


async def test_stalled_client_stops_the_process(
    machine: Machine, container: ShimConnection
) -> None:
    client = machine.client()
    handle = await run(machine, container, client, "head", "-c", "30000000", "/dev/zero")
    ready, _ = await asyncio.wait({handle.exited}, timeout=0.3)
    assert not ready
    await client.read_all()
    assert len(client.streams()[0]) == 30_000_000
    assert await code(handle) == 0


async def test_process_goes_on_without_its_client(
    machine: Machine, container: ShimConnection
) -> None:
    client = machine.client(stdin=True)
    handle = await run(
        machine, container, client, "sh", "-c", "echo a; sleep 0.3; seq 100000; exit 5"
    )
    await client.read_until(b"a\n")
    client.close()
    assert await code(handle) == 5


async def test_detached(machine: Machine, container: ShimConnection) -> None:
    handle = await run(machine, container, None, "sh", "-c", "seq 100000; exit 6")
    assert await code(handle) == 6


async def test_terminal(machine: Machine, container: ShimConnection) -> None:
    client = machine.client(stdin=True, raw=True)
    handle = await run(
        machine,
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
    handle = await run(machine, container, client, "cat", terminal=True)
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
    handle = await run(machine, container, client, "sh", "-c", "sleep 1000 & echo started")
    assert await code(handle) == 0
    await client.read_all()
    assert client.streams()[0] == b"started\n"


@pytest.mark.parametrize(("path", "errno"), [("/nope", 2), ("/etc/plain", 13), ("nope", 2)])
async def test_failure(machine: Machine, container: ShimConnection, path: str, errno: int) -> None:
    client = machine.client()
    with pytest.raises(RuntimeFailure) as failure:
        await run(machine, container, client, path)
    assert (failure.value.stage, failure.value.errno) == ("exec", errno)
    client.stream.sock.send(b"the reason")
    client.stream.close()
    assert await client.read_all() == b"the reason"
    handle = await run(machine, container, None, "true")
    assert await code(handle) == 0


@pytest.mark.vm
async def test_kill_tree(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    handle = await run(
        machine,
        container,
        client,
        "sh",
        "-c",
        "(sleep 1000 & sleep 1001) & sleep 1002 & echo up; wait",
    )
    await client.read_until(b"up\n")
    await handle.kill_tree()
    assert await code(handle) == 137
    async with asyncio.timeout(30):
        while living(container.pid) or living(container.shim_pid) != [container.pid]:
            await asyncio.sleep(0.005)


@pytest.mark.vm
@pytest.mark.parametrize("adopts", [False, True])
async def test_kill_tree_of_what_left_it(
    machine: Machine, container: ShimConnection, adopts: bool
) -> None:
    """Forked twice, in a session of its own, and its parent long gone."""
    if not adopts and not has_hybrid_cgroups():
        pytest.skip("there it is promised of those only that ask for it")
    client = machine.client()
    request = exec_request("sh", "-c", "(setsid sh -c 'sleep 1003 & sleep 1004 & echo up; wait' &) ; exec sleep 1005")  # fmt: skip
    request.adopts_orphans = adopts
    handle = await machine.zygote.exec(container, request, client.stream)
    await client.read_until(b"up\n")
    await handle.kill_tree()
    assert await code(handle) == 137
    assert commands_below(container.pid) == ["sleep 1000 "]
    async with asyncio.timeout(30):
        while leaves(container):  # the keeper's last work
            await asyncio.sleep(0.005)


@pytest.mark.vm
async def test_what_an_exec_leaves_behind(machine: Machine, container: ShimConnection) -> None:
    """It goes on, as under dockerd, and ends with the container."""
    request = exec_request("sh", "-c", "setsid sleep 1006 & exit 3")
    request.adopts_orphans = True
    handle = await machine.zygote.exec(container, request)
    assert await code(handle) == 3
    [leaf] = leaves(container)
    with open(f"{leaf}/cgroup.procs") as file:
        [pid] = map(int, file.read().split())
    await container.signal(9)
    await container.gone
    assert is_zombie(pid)
    assert not os.path.exists(leaf)


def has_hybrid_cgroups() -> bool:
    return len(open_cgroup("/any").paths()) > 1


def leaves(container: ShimConnection) -> list[str]:
    """The cgroups of execs below the container's."""
    above = open_cgroup(container.cgroup_path).paths()[""]
    return [entry.path for entry in os.scandir(above) if entry.is_dir() and "exec-" in entry.name]


def commands_below(pid: int) -> list[str]:
    """The command lines of a container's living processes: those of its PID namespace."""
    namespace = os.readlink(f"/proc/{pid}/ns/pid")
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == namespace:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    found.append(file.read().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in found if command]  # a zombie has none


def living(pid: int) -> list[int]:
    """The children of a process that are not zombies: the container's `sleep` reaps nobody."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        found = [int(child) for child in file.read().split()]
    return [child for child in found if not is_zombie(child)]


def command_name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


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
        requests.append(machine.zygote.exec(container, request))
    handles = await asyncio.gather(*requests)
    assert [await code(handle) for handle in handles] == list(range(20))


@pytest.mark.parametrize("namespaces", [("pid", "mount"), ("mount",)])
async def test_ends_with_the_container(machine: Machine, namespaces: tuple[str, ...]) -> None:
    container = await machine.spawn("sleep", "1000", namespaces=namespaces)
    client = machine.client()
    handle = await run(machine, container, client, "sh", "-c", "echo up; sleep 1000")
    await client.read_until(b"up\n")
    await container.signal(signal.SIGKILL)
    assert await code(handle) == 137
    await client.read_all()
    assert (await container.exited).exit_code == 137


async def test_it_goes_on_without_its_daemon(machine: Machine, container: ShimConnection) -> None:
    """The next daemon knows nothing of it, and can start others in the container."""
    client = machine.client(stdin=True)
    handle = await run(machine, container, client, "sh", "-c", "read x; echo $x; exec sleep 1000")
    await container.close()
    await machine.zygote.stop()
    await machine.zygote.start()
    found = await reconnect(container.socket_path)
    machine.connections[-1] = found
    await client.send(b"still here\n")
    assert client.streams() == (b"", b"")
    await client.read_until(b"still here\n")
    keeper = os.pidfd_open(handle.keeper_pid)
    other = await run(machine, found, None, "kill", "-9", str(inner_pid(handle.pid)))
    assert await code(other) == 0
    await client.read_all()
    await until_ended(keeper)


def inner_pid(pid: int) -> int:
    """A process's number in its own PID namespace."""
    with open(f"/proc/{pid}/status") as file:
        [line] = [line for line in file if line.startswith("NSpid:")]
    return int(line.split()[-1])


async def test_after_its_keepers_death(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    handle = await run(machine, container, client, "sleep", "1000")
    process = os.pidfd_open(handle.pid)
    os.kill(handle.keeper_pid, signal.SIGKILL)
    assert await code(handle) == 137
    assert await client.ended() == CLOSED
    await until_ended(process)
    await handle.signal(signal.SIGTERM)
    assert await code(await run(machine, container, None, "true")) == 0


async def test_left_behind_children_can_write(machine: Machine, container: ShimConnection) -> None:
    """Their output is read and dropped until the container ends, with the keeper."""
    client, later = machine.client(), machine.client()
    left = "(sleep 0.2; seq 50000; echo done >/tmp/done) & echo started"
    handle = await run(machine, container, client, "sh", "-c", left)
    keeper = os.pidfd_open(handle.keeper_pid)
    assert await code(handle) == 0
    look = "until cat /tmp/done 2>/dev/null; do sleep 0.05; done"
    await code(await run(machine, container, later, "sh", "-c", look))
    assert await later.read_until(b"done\n")
    await until_ended(keeper)
    handle = await run(machine, container, machine.client(), "sh", "-c", "sleep 1000 &")
    keeper = os.pidfd_open(handle.keeper_pid)
    assert await code(handle) == 0
    await container.signal(signal.SIGKILL)
    await container.exited
    await until_ended(keeper)


async def test_killed_fork_server_is_asked_again(
    machine: Machine, container: ShimConnection
) -> None:
    """Whoever's request had not begun has it made again; the others run as if nothing was."""
    clients = [machine.client() for _ in range(10)]
    requests = [run(machine, container, each, "echo", f"{i}") for i, each in enumerate(clients)]
    asked = asyncio.gather(*requests, return_exceptions=True)
    await asyncio.sleep(0)
    os.kill(machine.zygote.pid, signal.SIGKILL)
    handles = await asked
    assert [await code(each) for each in handles if isinstance(each, ExecHandle)] == [0] * 10
    for number, client in enumerate(clients):
        await client.read_all()
        assert client.streams() == (f"{number}\n".encode(), b"")
    assert len(machine.restarts) == 1


async def test_after_the_containers_end(machine: Machine, container: ShimConnection) -> None:
    await container.signal(signal.SIGKILL)
    await container.exited
    with pytest.raises(Unavailable):
        await run(machine, container, None, "true")


async def test_after_the_shims_death(machine: Machine, container: ShimConnection) -> None:
    client = machine.client()
    handle = await run(machine, container, client, "sleep", "1000")
    os.kill(container.shim_pid, signal.SIGKILL)
    assert await code(handle) == 137
    await asyncio.wait_for(container.gone, 30)
    with pytest.raises(Unavailable):
        await run(machine, container, machine.client(), "true")


async def test_nothing_piles_up_in_the_shim(machine: Machine, container: ShimConnection) -> None:
    """Execs that work, fail, are watched or not, and attached clients leave no descriptor behind."""

    async def round_trip() -> None:
        client, attached = machine.client(stdin=True), machine.client()
        handle = await run(machine, container, client, "cat", terminal=True)
        await handle.signal(signal.SIGKILL)
        await code(handle)
        await client.read_all()
        await code(await run(machine, container, None, "true"))
        with pytest.raises(RuntimeFailure):
            await run(machine, container, machine.client(), "/nope")
        await container.attach(attached.stream)
        attached.close()
        assert await attached.ended() == CLOSED

    def open_files() -> int:
        return len(os.listdir(f"/proc/{container.shim_pid}/fd"))

    def keepers() -> list[int]:
        return [pid for pid in living(machine.zygote.pid) if command_name(pid) == "sampan-exec"]

    await round_trip()
    before = open_files()
    for _ in range(10):
        await round_trip()
    async with asyncio.timeout(30):
        while (
            keepers() or open_files() > before
        ):  # a stream's end is told just before its socket is closed
            await asyncio.sleep(0.005)
