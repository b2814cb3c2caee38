"""Start order: who may start, who waits, who waits in vain."""

from __future__ import annotations

import asyncio

import pytest

from engine.builders import make_container
from sampan.engine.container import Container, Event, Status
from sampan.engine.health import Health, HealthStatus
from sampan.engine.order import Order, circle_of, obstacle
from sampan.engine.terms import Dependency, Terms, parse_after
from sampan.errors import Conflict, NotFound


class Registry:
    def __init__(self, *containers: Container) -> None:
        self.containers = {container.name: container for container in containers}

    def find(self, name: str) -> Container:
        if name not in self.containers:
            raise NotFound(f"No such container: {name}")
        return self.containers[name]


def container(
    name: str, status: Status, after: str = "", health: HealthStatus | None = None
) -> Container:
    made = make_container(name.encode().hex(), status, name=name, terms=Terms(after=parse_after(after)))  # fmt: skip
    made.state.health = Health(status=health) if health else None
    return made


@pytest.mark.parametrize(
    ("status", "health", "wanted", "passing"),
    [
        (Status.RUNNING, None, False, None),
        (Status.RUNNING, HealthStatus.UNHEALTHY, False, None),
        (Status.RUNNING, HealthStatus.HEALTHY, True, None),
        (Status.RUNNING, HealthStatus.STARTING, True, True),
        (Status.RUNNING, HealthStatus.UNHEALTHY, True, False),
        (Status.RUNNING, None, True, False),
        (Status.RESTARTING, None, False, True),
        (Status.CREATED, None, False, False),
        (Status.EXITED, HealthStatus.UNHEALTHY, True, False),
        (Status.PAUSED, None, False, False),
    ],
)
def test_obstacles(
    status: Status, health: HealthStatus | None, wanted: bool, passing: bool | None
) -> None:
    registry = Registry(container("db", status, health=health))
    found = obstacle(Dependency("db", wanted), registry.find)
    assert (found[1] if found else None) is passing


def test_one_that_is_not_there() -> None:
    assert obstacle(Dependency("db"), Registry().find) == (
        "it starts after db, which does not exist",
        False,
    )


def test_circles() -> None:
    first, second, third = (
        container("a", Status.CREATED, "b"),
        container("b", Status.CREATED, "c,missing"),
        container("c", Status.CREATED, "b"),
    )
    registry = Registry(first, second, third)
    circle = circle_of(first, registry.find)
    assert [each.name for each in circle or ()] == ["b", "c", "b"]
    registry.containers.pop("c")
    assert circle_of(first, registry.find) is None


async def test_waiting() -> None:
    other = container("db", Status.RUNNING, health=HealthStatus.STARTING)
    waiting = container("web", Status.CREATED, "db:healthy")
    order = Order(Registry(other, waiting))  # type: ignore[arg-type]
    starts = [asyncio.create_task(order.reached(waiting, patient=False)) for _ in range(2)]
    await asyncio.sleep(0)
    order.wake()
    await asyncio.sleep(0)
    assert not any(start.done() for start in starts)
    other.state.health = Health(status=HealthStatus.HEALTHY)
    order.wake()
    await asyncio.gather(*starts)


async def test_in_vain() -> None:
    other = container("db", Status.RUNNING, health=HealthStatus.STARTING)
    waiting = container("web", Status.CREATED, "db:healthy")
    order = Order(Registry(other, waiting))  # type: ignore[arg-type]
    start = asyncio.create_task(order.reached(waiting, patient=False))
    await asyncio.sleep(0)
    other.move(Event.ENDED)
    order.halted(other)
    with pytest.raises(Conflict, match=r"cannot start container web: .* which is exited"):
        await start


async def test_given_up() -> None:
    """By a stop or a removal of who waits, and nobody else's start; also in the moment of its turn."""
    other = container("db", Status.RUNNING, health=HealthStatus.STARTING)
    web, worker = container("web", Status.CREATED, "db:healthy"), container("worker", Status.CREATED, "db:healthy")  # fmt: skip
    order = Order(Registry(other, web, worker))  # type: ignore[arg-type]
    assert not order.give_up(web, Conflict("stopped"))
    starts = [asyncio.create_task(order.reached(who, patient=False)) for who in (web, web, worker)]
    await asyncio.sleep(0)
    order.wake()
    assert order.give_up(web, Conflict("stopped"))
    for start in starts[:2]:
        with pytest.raises(Conflict, match="stopped"):
            await start
    assert not order.give_up(web, Conflict("stopped"))
    assert not starts[2].done()
    starts[2].cancel()
    await asyncio.wait(starts[2:])
    assert not order.give_up(worker, Conflict("stopped")), "who was cancelled waits no more"


async def test_patience() -> None:
    """A restart by policy waits for whoever comes, also for one that is not there yet."""
    waiting = container("web", Status.RESTARTING, "db")
    registry = Registry(waiting)
    order = Order(registry)  # type: ignore[arg-type]
    start = asyncio.create_task(order.reached(waiting, patient=True))
    await asyncio.sleep(0)
    assert waiting.state.error == "waiting: it starts after db, which does not exist"
    registry.containers["db"] = container("db", Status.EXITED)
    order.wake()
    await asyncio.sleep(0)
    registry.containers["db"].move(Event.STARTED)
    order.running(registry.containers["db"])
    await start
