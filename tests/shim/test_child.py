"""What the zygote forks, where nothing more can be forked: who asked is told, not left alone."""

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from sampan.shim import child, protocol
from sampan.shim.protocol import Message


@pytest.fixture(autouse=True)
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(child, "leave_zygote", lambda: None)
    monkeypatch.setattr("sampan.shim.helper.os.fork", fork)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.fixture
def control() -> Iterator[tuple[socket.socket, socket.socket]]:
    daemon, theirs = pair()
    with daemon, theirs:
        daemon.settimeout(5)
        yield daemon, theirs


def said(daemon: socket.socket) -> list[Message]:
    found = []
    for _ in range(2):
        received = protocol.receive(daemon)
        assert received is not None
        found.append(received[0])
    return found


def expect_refusal(daemon: socket.socket) -> None:
    begun, failed = said(daemon)
    assert begun["type"] == "begun"
    assert (failed["type"], failed["errno"]) == ("failed", errno.EAGAIN)
    assert failed["message"] == "fork: Resource temporarily unavailable"


def test_one_that_is_forked_for_a_request(
    control: tuple[socket.socket, socket.socket],
) -> None:
    daemon, theirs = control
    child.run_now(protocol.INLINE + b"{}", [theirs.fileno()])
    expect_refusal(daemon)


def test_a_spare_that_was_given_something_meanwhile(
    control: tuple[socket.socket, socket.socket],
) -> None:
    daemon, theirs = control
    zygote, source = pair()
    helpers = pair()
    with zygote, source:
        protocol.send_packet(zygote, protocol.INLINE + b"{}", [theirs.fileno()])
        child.run_spare(source, helpers, (), None, warm=True)
        expect_refusal(daemon)
    assert [end.fileno() for end in helpers] == [-1, -1]  # nothing more can be given


@pytest.mark.parametrize("gone", [False, True])
def test_a_spare_that_was_given_nothing(gone: bool) -> None:
    zygote, source = pair()
    with zygote, source:
        if gone:
            zygote.close()
        child.run_spare(source, pair(), (), None, warm=False)
