"""Restart policies: the rules as tables, the timers on a clock that the test moves."""

from __future__ import annotations

import asyncio
import signal

import pytest

from engine.builders import make_container
from sampan.engine import restarts
from sampan.engine.container import Container, Status
from sampan.engine.model import HostConfig, RestartPolicy
from sampan.errors import RuntimeFailure


@pytest.mark.parametrize(
    ("name", "limit", "exit_code", "count", "by_hand", "wanted"),
    [
        ("no", 0, 1, 0, False, False),
        ("", 0, 1, 0, False, False),
        ("always", 0, 0, 0, False, True),
        ("always", 0, 1, 99, False, True),
        ("always", 0, 0, 0, True, False),
        ("unless-stopped", 0, 0, 0, False, True),
        ("unless-stopped", 0, 137, 0, True, False),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 0, 3, 99, False, True),
        ("on-failure", 2, 3, 1, False, True),
        ("on-failure", 2, 3, 2, False, False),
        ("on-failure", 0, 143, 0, True, False),
    ],
)
def test_after_an_end(
    name: str, limit: int, exit_code: int, count: int, by_hand: bool, wanted: bool
) -> None:
    policy = RestartPolicy(name=name, maximum_retry_count=limit)
    assert wanted is restarts.wants_restart(
        policy, exit_code=exit_code, restart_count=count, manually_stopped=by_hand
    )


@pytest.mark.parametrize(
    ("name", "status", "by_hand", "wanted"),
    [
        ("always", Status.EXITED, False, True),
        ("always", Status.EXITED, True, True),
        ("always", Status.CREATED, False, False),
        ("always", Status.DEAD, False, False),
        ("always", Status.RUNNING, False, False),
        ("unless-stopped", Status.EXITED, False, True),
        ("unless-stopped", Status.EXITED, True, False),
        ("on-failure", Status.EXITED, False, False),
        ("on-failure", Status.RESTARTING, False, True),
        ("no", Status.EXITED, False, False),
    ],
)
def test_with_the_engine(name: str, status: Status, by_hand: bool, wanted: bool) -> None:
    """What dockerd does when it starts; a planned restart goes on under any policy."""
    container = make_container(
        status=status,
        host_config=HostConfig(restart_policy=RestartPolicy(name=name)),
        manually_stopped=by_hand,
    )
    assert restarts.due([container]) == ([container] if wanted else [])


def test_back_off() -> None:
    """100 ms doubling to a minute, and from the start after ten seconds of running."""
    delays, delay_s = [], 0.0
    for _ in range(12):
        delay_s = restarts.following_delay_s(delay_s, 0.1)
        delays.append(round(delay_s, 1))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert restarts.following_delay_s(60.0, 9.9) == 60.0
    assert restarts.following_delay_s(60.0, 10.0) == 0.1


def test_signals() -> None:
    """A program's messages do not stop a container for good; what ends it by default does."""
    assert not restarts.stops_by_hand(signal.SIGHUP)
    assert restarts.stops_by_hand(signal.SIGTERM)
    assert restarts.stops_by_hand(signal.SIGKILL)


class Clock:
    """The event loop's time, moved by the test: timers are due when it says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._real = loop.time
        self._moved_s = 0.0
        monkeypatch.setattr(loop, "time", lambda: self._real() + self._moved_s)

    async def move(self, seconds: float) -> None:
        """Let what is begun settle, so much time pass, and what is due then happen."""
        for pause_s in (seconds, 0.0):
            for _ in range(10):
                await asyncio.sleep(0)
            self._moved_s += pause_s


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Started:
    """Takes the starts."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: RuntimeFailure | None = None

    async def __call__(self, container: Container) -> None:
        self.ids.append(container.id[:2])
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure


async def test_a_restart_comes_after_its_pause(clock: Clock) -> None:
    started = Started()
    plans = restarts.Restarts(started)
    plans.open()
    plans.schedule(make_container("aa"), 60.0)
    await clock.move(59.0)
    assert started.ids == []
    await clock.move(1.1)
    assert started.ids == ["aa"]
    await plans.close()


async def test_a_dropped_plan_does_not_come(clock: Clock) -> None:
    started = Started()
    plans = restarts.Restarts(started)
    plans.open()
    container = make_container("aa")
    plans.schedule(container, 1.0)
    plans.schedule(container, 5.0)
    await clock.move(2.0)
    assert started.ids == []
    plans.cancel(container)
    await clock.move(60.0)
    assert started.ids == []
    await plans.close()


async def test_nothing_starts_before_the_engine_is_open(clock: Clock) -> None:
    started = Started()
    plans = restarts.Restarts(started)
    plans.schedule(make_container("aa"), 0.1)
    await clock.move(10.0)
    assert started.ids == []
    plans.open()
    await clock.move(0.0)
    assert started.ids == ["aa"]
    await plans.close()


async def test_a_few_start_at_a_time_and_a_failure_holds_up_nobody(clock: Clock) -> None:
    started = Started()
    started.gate.clear()
    started.failure = RuntimeFailure("start", "no")
    plans = restarts.Restarts(started)
    plans.open()
    for number in range(restarts.STARTS_AT_ONCE + 2):
        plans.schedule(make_container(f"{number:02x}"), 0.0)
    await clock.move(0.1)
    assert len(started.ids) == restarts.STARTS_AT_ONCE
    started.gate.set()
    await clock.move(0.1)
    assert len(started.ids) == restarts.STARTS_AT_ONCE + 2
    await plans.close()


async def test_the_end_of_the_engine_lets_starts_finish(clock: Clock) -> None:
    started = Started()
    started.gate.clear()
    plans = restarts.Restarts(started)
    plans.open()
    plans.schedule(make_container("aa"), 0.0)
    plans.schedule(make_container("bb"), 60.0)
    await clock.move(0.1)
    closing = asyncio.create_task(plans.close())
    await clock.move(0.1)
    assert not closing.done()
    started.gate.set()
    await closing
    plans.schedule(make_container("cc"), 0.0)
    await clock.move(120.0)
    assert started.ids == ["aa"]
