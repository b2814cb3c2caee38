"""`sampan.shim.spares`: how many shims wait, and when the zygote sees to them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sampan.shim.spares import BUSY_S, MOST, PAUSE_S, QUIET_S, RETRY_S, Spare, Spares

NOW = 1000.0


class Bench:
    """Spares as a zygote has them, with sockets but without processes."""

    def __init__(self) -> None:
        self.spares = Spares()
        self.far: list[socket.socket] = []

    def fork(self, now: float) -> Spare:
        warm = self.spares.make_room(now)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        helper, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far += [theirs, far]
        spare = Spare(len(self.far), ours, helper, warm=warm)
        self.spares.add(spare)
        return spare

    def take(self, now: float) -> bool:
        """A request; whether it found a spare."""
        spare = self.spares.take(now)
        if spare is not None:
            spare.close()
        return spare is not None


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.spares.close()
    for sock in bench.far:
        sock.close()


def test_the_first_is_lean_and_stays(bench: Bench) -> None:
    assert bench.spares.patience(NOW) == 0
    assert not bench.fork(NOW).warm
    assert bench.spares.patience(NOW) is None


def test_the_next_comes_in_a_pause(bench: Bench) -> None:
    bench.fork(NOW)
    assert bench.take(NOW)
    assert bench.spares.patience(NOW) == pytest.approx(QUIET_S)
    assert bench.spares.patience(NOW + QUIET_S) == pytest.approx(0)


def test_the_next_comes_when_somebody_has_ended(bench: Bench) -> None:
    assert not bench.take(NOW)
    bench.spares.ended(99, NOW + 0.001)
    assert bench.spares.patience(NOW + 0.001) == 0
    assert bench.fork(NOW + 0.001).warm


def test_one_request_asks_for_one_spare(bench: Bench) -> None:
    bench.take(NOW)
    bench.fork(NOW)
    assert bench.spares.patience(NOW + 1) == pytest.approx(BUSY_S - 1)


def test_as_many_as_were_asked_for_lately(bench: Bench) -> None:
    """The further ones come in a longer pause, each behind a look at what else there is to do."""
    for _ in range(3):
        bench.take(NOW)
    bench.fork(NOW)
    assert bench.spares.patience(NOW) == pytest.approx(PAUSE_S)
    bench.fork(NOW + PAUSE_S)
    assert bench.spares.patience(NOW + PAUSE_S) == pytest.approx(0)
    bench.fork(NOW + PAUSE_S)
    assert bench.spares.patience(NOW + PAUSE_S) == pytest.approx(BUSY_S - PAUSE_S)
    assert [bench.take(NOW + 1) for _ in range(4)] == [True, True, True, False]


def test_a_burst_asks_for_a_few(bench: Bench) -> None:
    for _ in range(50):
        bench.take(NOW)
    for _ in range(MOST):
        assert (bench.spares.patience(NOW + PAUSE_S) or 0) == pytest.approx(0)
        bench.fork(NOW + PAUSE_S)
    assert bench.spares.patience(NOW + PAUSE_S) == pytest.approx(BUSY_S - PAUSE_S)


def test_requests_of_long_ago_count_no_more(bench: Bench) -> None:
    bench.take(NOW)
    bench.take(NOW + BUSY_S)
    bench.fork(NOW + BUSY_S)
    assert bench.spares.patience(NOW + BUSY_S + 1) == pytest.approx(BUSY_S - 1)


def test_all_give_way_to_a_lean_one(bench: Bench) -> None:
    bench.take(NOW)
    bench.take(NOW)
    bench.fork(NOW)
    bench.fork(NOW)
    assert bench.spares.patience(NOW + BUSY_S) == 0
    assert not bench.fork(NOW + BUSY_S).warm
    for end in bench.far[:4]:
        assert end.recv(1) == b""  # they see the end, and end
    assert bench.spares.patience(NOW + BUSY_S) is None


def test_a_spare_that_dies_is_not_replaced_at_once(bench: Bench) -> None:
    bench.take(NOW)
    bench.take(NOW)
    bench.fork(NOW)
    second = bench.fork(NOW)
    bench.spares.ended(second.pid, NOW + 1)
    assert bench.spares.patience(NOW + 1) == pytest.approx(QUIET_S)
    first = bench.spares.take(NOW + 1)
    assert first is not None and first is not second
    first.close()


def test_a_fork_that_failed_is_tried_later(bench: Bench) -> None:
    bench.spares.not_forked(NOW)
    assert bench.spares.patience(NOW) == pytest.approx(RETRY_S)
    bench.take(NOW)
    bench.take(NOW)
    bench.fork(NOW)
    bench.spares.not_forked(NOW + PAUSE_S)
    assert bench.spares.patience(NOW + PAUSE_S) == pytest.approx(RETRY_S)
