"""Health: docker's counting as tables, and a container's checks over execs that the test ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engine.builders import make_container
from sampan.engine import health
from sampan.engine.container import Container, Status
from sampan.engine.health import CheckResult, Health, HealthStatus
from sampan.engine.health_checks import HealthChecks
from sampan.engine.model import ContainerConfig, ExecConfig, HealthConfig
from sampan.errors import RuntimeFailure
from sampan.shim.streams import ClientStream

SECOND = 1_000_000_000
STARTING, HEALTHY, UNHEALTHY = HealthStatus


def result(exit_code: int, at_s: float = 100) -> CheckResult:
    at_ns = int(at_s * SECOND)
    return CheckResult(start_ns=at_ns, end_ns=at_ns + 1, exit_code=exit_code)


@pytest.mark.parametrize(
    ("check", "codes", "status", "streak"),
    [
        (HealthConfig(), [], STARTING, 0),
        (HealthConfig(), [0], HEALTHY, 0),
        (HealthConfig(), [1], STARTING, 1),
        (HealthConfig(), [1, 1, 1], UNHEALTHY, 3),
        (HealthConfig(), [1, 1, 0, 1, 1], HEALTHY, 2),
        (HealthConfig(), [1, 1, 1, 1, 0], HEALTHY, 0),
        (HealthConfig(retries=1), [0, -1], UNHEALTHY, 1),
        # Within the start period failures do not count, until the first success.
        (HealthConfig(retries=1, start_period=1000 * SECOND), [1, 1], STARTING, 0),
        (HealthConfig(retries=1, start_period=1000 * SECOND), [0, 1], UNHEALTHY, 1),
    ],
)
def test_counting(check: HealthConfig, codes: list[int], status: HealthStatus, streak: int) -> None:
    state = Health()
    for code in codes:
        state = health.judged(state, check, result(code), started_ns=0)
    assert (state.status, state.failing_streak) == (status, streak)
    assert [entry.exit_code for entry in state.log] == codes


def test_the_last_five_results_are_kept() -> None:
    state = Health()
    for code in range(7):
        state = health.judged(state, HealthConfig(), result(code), started_ns=0)
    assert [entry.exit_code for entry in state.log] == [2, 3, 4, 5, 6]
    assert health.halted(state) == Health(status=UNHEALTHY, log=state.log)
    again = health.begun(ContainerConfig(healthcheck=HealthConfig(test=["CMD", "x"])), state)
    assert again == Health(log=state.log)


@pytest.mark.parametrize(
    ("test", "shell", "arguments"),
    [
        ([], None, None),
        (["NONE"], None, None),
        (["BOGUS", "x"], None, None),
        (["CMD", "a", "b c"], None, ["a", "b c"]),
        (["CMD"], None, []),
        (["CMD-SHELL", "a && b"], None, ["/bin/sh", "-c", "a && b"]),
        (["CMD-SHELL", "a"], ["/bin/bash", "-ec"], ["/bin/bash", "-ec", "a"]),
    ],
)
def test_command(test: list[str], shell: list[str] | None, arguments: list[str] | None) -> None:
    config = ContainerConfig(healthcheck=HealthConfig(test=test), shell=shell)
    assert health.command(config) == arguments
    assert (health.begun(config, None) is None) is (arguments is None)


def test_the_image_fills_in() -> None:
    image = HealthConfig(test=["CMD", "x"], interval=5 * SECOND, retries=7)
    wanted = HealthConfig(interval=SECOND)
    assert health.merged(wanted, image) == HealthConfig(
        test=["CMD", "x"], interval=SECOND, retries=7
    )
    assert health.merged(None, image) == image
    assert health.merged(wanted, None) == wanted
    assert health.merged(HealthConfig(test=["NONE"]), image).test == ["NONE"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("check", "status", "ran_s", "pause_s"),
    [
        (HealthConfig(), STARTING, 1, 30),
        (HealthConfig(interval=2 * SECOND), HEALTHY, 1, 2),
        (HealthConfig(start_period=9 * SECOND), STARTING, 1, 5),
        (HealthConfig(start_period=9 * SECOND, start_interval=SECOND), STARTING, 1, 1),
        (HealthConfig(start_period=9 * SECOND, start_interval=SECOND), HEALTHY, 1, 30),
        (HealthConfig(start_period=9 * SECOND, start_interval=SECOND), STARTING, 9, 30),
        (HealthConfig(start_interval=SECOND), STARTING, 1, 30),
    ],
)
def test_pauses(check: HealthConfig, status: HealthStatus, ran_s: int, pause_s: int) -> None:
    assert health.pause_ns(check, status, ran_ns=ran_s * SECOND) == pause_s * SECOND


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5µs"),
        (500_000_000, "500ms"),
        (SECOND, "1s"),
        (1_250_000_000, "1.25s"),
        (90 * SECOND, "1m30s"),
        (3600 * SECOND, "1h0m0s"),
    ],
)
def test_durations_as_go_prints_them(span_ns: int, text: str) -> None:
    assert health.go_duration(span_ns) == text


class Execs:
    """Each check waits for the test: `(exit code or failure, output)`."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[asyncio.Future[tuple[int | RuntimeFailure, bytes]]] = (
            asyncio.Queue()
        )
        self.killed = 0

    async def run(self, container_id: str, config: ExecConfig, stream: ClientStream) -> int:
        end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.begun.put_nowait(end)
        try:
            outcome, output = await end
            stream.sock.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(stream.sock, output)
        except asyncio.CancelledError:
            self.killed += 1
            raise
        except BrokenPipeError:
            pass  # the engine has enough of it; the real process is read on by its keeper
        finally:
            stream.close()
        if isinstance(outcome, RuntimeFailure):
            raise outcome
        return int(outcome)


class World:
    """One container with a check every millisecond, and what the engine did about it."""

    def __init__(self, **check: Any) -> None:
        healthcheck = HealthConfig(**{"test": ["CMD", "x"], "interval": 1_000_000, **check})
        config = ContainerConfig(image="busybox", healthcheck=healthcheck)
        self.container: Container = make_container(status=Status.RUNNING, config=config)
        self.container.state.health = health.begun(config, None)
        self.execs = Execs()
        self.events: list[str] = []
        self.saves = 0
        self.changed = asyncio.Condition()
        self.checks = HealthChecks(self, self, self.execs)  # type: ignore[arg-type]

    def save(self, container: Container) -> None:
        self.saves += 1

    def emit(self, container: Container, action: str) -> None:
        self.events.append(action)

    @property
    def health(self) -> Health:
        assert self.container.state.health is not None
        return self.container.state.health

    async def end(self, outcome: int | RuntimeFailure, output: bytes = b"") -> CheckResult:
        """End the next check, and wait until the one after it begins."""
        end = await self.execs.begun.get()
        end.set_result((outcome, output))
        following = await self.execs.begun.get()
        self.execs.begun.put_nowait(following)
        return self.health.log[-1]


@pytest.fixture
async def worlds() -> Any:
    made: list[World] = []

    def make(**check: Any) -> World:
        made.append(World(**check))
        made[-1].checks.running(made[-1].container)
        return made[-1]

    yield make
    for world in made:
        await world.checks.close()


Worlds = Callable[..., World]


async def test_events_and_writes_only_at_changes(worlds: Worlds) -> None:
    world = worlds(retries=2)
    assert (await world.end(0, b"fine\n")).output == "fine\n"
    await world.end(0)
    await world.end(1)
    await world.end(1)
    await world.end(1)
    assert world.events == ["health_status: healthy", "health_status: unhealthy"]
    assert world.saves == 2
    assert world.health.failing_streak == 3


async def test_long_output_is_cut(worlds: Worlds) -> None:
    world = worlds()
    assert (await world.end(0, b"x" * 4096)).output == "x" * 4096
    assert (await world.end(0, b"x" * 100_000)).output == "x" * 4096 + "..."
    assert (await world.end(0, b"\xff")).output == "\ufffd"


async def test_a_check_that_cannot_be_made(worlds: Worlds) -> None:
    world = worlds(retries=1)
    entry = await world.end(RuntimeFailure("exec", "no such file"))
    assert (entry.exit_code, entry.output) == (-1, "no such file")
    assert world.health.status is UNHEALTHY


async def test_a_check_that_takes_too_long_is_killed(worlds: Worlds) -> None:
    world = worlds(timeout=5_000_000, retries=1)
    await world.execs.begun.get()
    await world.execs.begun.get()
    assert world.execs.killed == 1
    entry = world.health.log[0]
    assert (entry.exit_code, entry.output) == (-1, "Health check exceeded timeout (5ms)")


async def test_a_check_under_way_at_the_end_does_not_count(worlds: Worlds) -> None:
    world = worlds()
    await world.execs.begun.get()
    world.checks.halted(world.container)
    while not world.execs.killed:
        await asyncio.sleep(0)
    assert world.health.log == []
    assert world.events == []
