"""Starting processes from a helper, so that the shim itself stays small.

Whatever Python code runs in a forked process writes to the pages it shares with the zygote, if only
reference counts, and each written page is the process's own from then on. Making a container touches
some 1.5 MiB that way. A helper, forked for it, does that work and ends; what it clones are the shim's
children all the same (CLONE_PARENT), so that the shim reaps them and they die with it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from sampan.errors import RuntimeFailure, SampanError
from sampan.linux import process
from sampan.linux import syscalls as kernel
from sampan.shim import protocol
from sampan.shim.working_set import Observer, populate, private_areas

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

    from sampan.shim.protocol import Message
    from sampan.shim.working_set import Lesson, Span

    Answer = tuple[Message, list[int]]
    Work = Callable[[Message, list[int]], Answer]

# The end of a process takes its processor for a millisecond. The kernel wakes the reader of a message on the
# processor of who sent it: there the parent would wait that long.
WAY_S = 0.001


class Helper:
    """A process that waits for one piece of work, does it and ends; with its parent at the latest."""

    __slots__ = ("_sock",)

    def __init__(
        self,
        work: Work,
        ends: tuple[socket.socket, socket.socket] | None = None,
        *,
        ahead: Iterable[Span] = (),
        lesson: Lesson | None = None,
    ) -> None:
        """Fork it; it first takes the time to have the memory `ahead` of need.

        `ends` are those of its socket, where somebody else gives it its work: taken over.

        Raises:
            OSError: of fork(2).
        """
        self._sock, theirs = ends or socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        )
        parent = os.getpid()
        try:
            if os.fork() == 0:
                self._sock.close()
                be_helper(work, theirs, parent, ahead, lesson)
        except OSError:
            self._sock.close()
            raise
        finally:
            theirs.close()

    def begin(self, packet: bytes, fds: list[int]) -> None:
        """Give it its work, an encoded message, that it does beside us. The caller keeps `fds`."""
        try:
            protocol.send_packet(self._sock, packet, fds)
        except OSError:
            pass  # it died: `result` says so

    def result(self) -> Answer:
        """Wait for the answer and its descriptors.

        Raises:
            RuntimeFailure: it failed; processes it made have ended, as zombies of ours at most.
        """
        try:
            received = protocol.receive(self._sock)
        except OSError:
            received = None
        finally:
            self._sock.close()
        if received is None:
            raise RuntimeFailure("shim", "the shim's helper died")
        answer, _ = received
        if answer["type"] == "failed":
            raise protocol.failure_from_dict(answer)
        return received


def be_helper(
    work: Work, sock: socket.socket, parent: int, ahead: Iterable[Span], lesson: Lesson | None
) -> NoReturn:
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        process.clone_for_parent()
        populate(ahead)
        observer, areas = observe(lesson)
        received = protocol.receive(sock) if os.getppid() == parent else None
        if received is not None:
            kind = received[0]["type"]
            protocol.send(sock, *attempt(work, *received))
            time.sleep(WAY_S)
            if lesson is not None and observer is not None and kind in lesson.wanted:
                lesson.give(kind, observer.touched(areas))
    except BaseException:  # noqa: BLE001  a fork's child never returns into its parent's stack
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def attempt(work: Work, message: Message, fds: list[int]) -> Answer:
    try:
        return work(message, fds)
    except (SampanError, OSError) as error:
        return {"type": "failed", **protocol.failure_to_dict(as_failure(error))}, []


def observe(lesson: Lesson | None) -> tuple[Observer | None, list[Span]]:
    """What is needed for a lesson, while /proc is the machine's."""
    if lesson is None:
        return None, []
    try:
        return Observer(), private_areas()
    except OSError:  # of a kernel without it
        return None, []


def as_failure(error: SampanError | OSError) -> RuntimeFailure:
    """Any failure of a start as one with a stage."""
    if isinstance(error, RuntimeFailure):
        return error
    if isinstance(error, OSError):
        path = error.filename if isinstance(error.filename, str) else None
        return RuntimeFailure("shim", str(error), path=path, errno=error.errno)
    return RuntimeFailure("shim", error.message, hint=error.hint)
