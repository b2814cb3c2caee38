"""Execs over a fork server that takes its time: what clients ask for meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.builders import make_container
from sampan.engine.container import Container, Status
from sampan.engine.execs import KEPT_S, SWEEP_S, Execs
from sampan.engine.model import ExecConfig
from sampan.errors import Conflict, NotFound, RuntimeFailure


class Handle:
    pid = 7

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))


class Zygote:
    """Starts an exec when `go` is set; with `failure`, fails then."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.handle = Handle()
        self.failure: RuntimeFailure | None = None
        self.on_exit: Callable[[int], None] = lambda _: None

    async def exec(
        self, shim: object, request: object, stream: object, *, on_exit: Callable[[int], None]
    ) -> Handle:
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        self.on_exit = on_exit
        return self.handle


@pytest.fixture
def container() -> Container:
    container = make_container(status=Status.RUNNING)
    container.shim = SimpleNamespace()  # type: ignore[assignment]
    return container


@pytest.fixture
async def zygote() -> Zygote:
    return Zygote()


@pytest.fixture
def execs(container: Container, zygote: Zygote) -> Execs:
    registry = SimpleNamespace(find=lambda _: container, holds=lambda held: held is container)
    services: Any = SimpleNamespace(
        registry=registry,
        zygote=zygote,
        profiles=SimpleNamespace(of=lambda _: None),
        leases=SimpleNamespace(joining=contextlib.nullcontext),
        networking=SimpleNamespace(link_variables=lambda _: []),
    )
    return Execs(services, SimpleNamespace(emit=lambda *_, **__: None))  # type: ignore[arg-type]


async def test_a_size_sent_early_arrives(execs: Execs, zygote: Zygote) -> None:
    """A client sends its terminal's size while its start is under way."""
    identity = await execs.create("c", ExecConfig(cmd=["sh"], tty=True))
    start = asyncio.create_task(execs.start(identity))
    resize = asyncio.create_task(execs.resize(identity, 40, 120))
    await asyncio.sleep(0)
    assert not resize.done()
    zygote.go.set()
    await start
    await resize
    assert zygote.handle.sizes == [(40, 120)]


async def test_a_size_for_what_did_not_start(execs: Execs, zygote: Zygote) -> None:
    """A failed start answers those who wait for it."""
    zygote.failure = RuntimeFailure("exec", "no such file", errno=2)
    identity = await execs.create("c", ExecConfig(cmd=["sh"], tty=True))
    resize = asyncio.create_task(execs.resize(identity, 40, 120))
    zygote.go.set()
    with pytest.raises(RuntimeFailure):
        await execs.start(identity)
    with pytest.raises(Conflict, match="is not running"):
        await resize
    assert execs.get(identity).exit_code == 127


async def test_life(execs: Execs, zygote: Zygote, container: Container) -> None:
    """Created, running, ended; a second start says which."""
    zygote.go.set()
    identity = await execs.create("c", ExecConfig(cmd=["sh"]))
    await execs.start(identity)
    entry = execs.get(identity)
    assert (entry.running, entry.pid, entry.exit_code) == (True, 7, None)
    with pytest.raises(Conflict, match="is already running"):
        await execs.start(identity)
    zygote.on_exit(3)
    assert (entry.running, entry.pid, entry.exit_code) == (False, 0, 3)
    assert identity not in container.exec_ids
    with pytest.raises(Conflict, match="has already run"):
        await execs.start(identity)
    with pytest.raises(NotFound, match="No such exec instance: nosuch"):
        execs.get("nosuch")


async def test_old_ones_are_forgotten(
    execs: Execs, zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When they ended five minutes ago; looked for every half minute, not at each exec."""
    now = 1000.0
    monkeypatch.setattr("sampan.engine.execs.time.monotonic", lambda: now)
    zygote.go.set()
    first = await execs.create("c", ExecConfig(cmd=["sh"]))
    await execs.start(first)
    zygote.on_exit(0)
    now += KEPT_S - 1
    second = await execs.create("c", ExecConfig(cmd=["sh"]))
    now += SWEEP_S - 1
    await execs.create("c", ExecConfig(cmd=["sh"]))
    assert execs.get(first).exit_code == 0
    now += 1
    await execs.create("c", ExecConfig(cmd=["sh"]))
    with pytest.raises(NotFound):
        execs.get(first)
    assert execs.get(second).exit_code is None
