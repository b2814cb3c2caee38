"""Starting processes from a helper, so that the shim itself stays small.

Whatever Python code runs in a forked process writes to the pages it shares with the zygote, if only
reference counts, and each written page is the process's own from then on. Making a container touches
some 1.5 MiB that way. A helper, forked for it, does that work and ends; what it clones are the shim's
children all the same (CLONE_PARENT), so that the shim reaps them and they die with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

from sampan.errors import RuntimeFailure, SampanError
from sampan.linux import process
from sampan.linux import syscalls as kernel
from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sampan.shim.protocol import Message

    Answer = tuple[Message, list[int]]
    Work = Callable[[Message, list[int]], Answer]

MADV_POPULATE_READ = 22  # asm-generic/mman-common.h, Linux 5.14
MADV_POPULATE_WRITE = 23


class Helper:
    """A process that waits for one piece of work, does it and ends; with its parent at the latest."""

    __slots__ = ("_sock",)

    def __init__(self, work: Work, *, ahead: bool = False) -> None:
        """Fork it; `ahead` of need, it first takes the time to make all its pages its own.

        Raises:
            OSError: of fork(2).
        """
        self._sock, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        )
        parent = os.getpid()
        try:
            if os.fork() == 0:
                self._sock.close()
                be_helper(work, theirs, parent, ahead=ahead)
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


def be_helper(work: Work, sock: socket.socket, parent: int, *, ahead: bool) -> NoReturn:
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        process.clone_for_parent()
        if ahead:
            populate()
        received = protocol.receive(sock) if os.getppid() == parent else None
        if received is not None:
            message, fds = attempt(work, *received)
            protocol.send(sock, message, fds)
    except BaseException:  # noqa: BLE001  a fork's child never returns into its parent's stack
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def attempt(work: Work, message: Message, fds: list[int]) -> Answer:
    try:
        return work(message, fds)
    except (SampanError, OSError) as error:
        return {"type": "failed", **protocol.failure_to_dict(as_failure(error))}, []


def populate() -> None:
    """Take all pages now, in bulk, instead of one fault at a time later: those shared with the parent are
    copied, those of files mapped.

    A kernel that does not know how (before 5.14) leaves it at the faults.
    """
    with open("/proc/self/maps", "rb") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        span, mode = line.split(b" ", 2)[:2]
        if mode[3:] != b"p" or mode[:1] != b"r":
            continue
        start, end = (int(part, 16) for part in span.split(b"-"))
        how = MADV_POPULATE_WRITE if mode[1:2] == b"w" else MADV_POPULATE_READ
        kernel.libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), how)


def as_failure(error: SampanError | OSError) -> RuntimeFailure:
    """Any failure of a start as one with a stage."""
    if isinstance(error, RuntimeFailure):
        return error
    if isinstance(error, OSError):
        path = error.filename if isinstance(error.filename, str) else None
        return RuntimeFailure("shim", str(error), path=path, errno=error.errno)
    return RuntimeFailure("shim", error.message, hint=error.hint)
