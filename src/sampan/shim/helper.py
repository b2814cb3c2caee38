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

from sampan.errors import RuntimeFailure, SampanError
from sampan.linux import process
from sampan.linux import syscalls as kernel
from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sampan.shim.protocol import Message

    Work = Callable[[], tuple[Message, list[int]]]


def run(work: Work) -> tuple[Message, list[int]]:
    """Do `work` in a helper; its answer and descriptors.

    Raises:
        RuntimeFailure: it failed; processes it made have ended, as zombies of ours at most.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    parent = os.getpid()
    try:
        if os.fork() == 0:
            be_helper(work, theirs, parent)
    finally:
        theirs.close()
    try:
        received = protocol.receive(ours)
    finally:
        ours.close()
    if received is None:
        raise RuntimeFailure("shim", "the shim's helper died")
    message, fds = received
    if message["type"] == "failed":
        raise protocol.failure_from_dict(message)
    return message, fds


def be_helper(work: Work, answer: socket.socket, parent: int) -> NoReturn:
    """Work, answer, end; the shim's death ends it too."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            process.clone_for_parent()
            message, fds = attempt(work)
            protocol.send(answer, message, fds)
    except BaseException:  # noqa: BLE001  a fork's child never returns into its parent's stack
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def attempt(work: Work) -> tuple[Message, list[int]]:
    try:
        return work()
    except (SampanError, OSError) as error:
        return {"type": "failed", **protocol.failure_to_dict(as_failure(error))}, []


def as_failure(error: SampanError | OSError) -> RuntimeFailure:
    """Any failure of a start as one with a stage."""
    if isinstance(error, RuntimeFailure):
        return error
    if isinstance(error, OSError):
        path = error.filename if isinstance(error.filename, str) else None
        return RuntimeFailure("shim", str(error), path=path, errno=error.errno)
    return RuntimeFailure("shim", error.message, hint=error.hint)
