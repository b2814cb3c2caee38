"""What the zygote forks: a process that becomes a container's shim or the keeper of an exec."""

from __future__ import annotations

import ctypes
import os
import signal
import socket

from sampan.linux import syscalls as kernel
from sampan.shim import launching, protocol
from sampan.shim.exec_order import ExecOrder
from sampan.shim.helper import Helper
from sampan.shim.keeper import Keeper
from sampan.shim.loop import Loop
from sampan.shim.process import Shim
from sampan.shim.protocol import SpawnOrder, StreamOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.shim.protocol import Message
    from sampan.shim.working_set import Lesson, Span

    Pair = tuple[socket.socket, socket.socket]

PR_SET_NAME = 15  # linux/prctl.h
SHIM_NAME = ctypes.create_string_buffer(b"sampan-shim")
REHEARSAL: Message = {"type": "rehearsal", "args": ["true"], "pid": 1, "stream": {"stdin": False}}
ON_ITS_WAY_S = 0.05
KEEPER_NAME = ctypes.create_string_buffer(b"sampan-exec")


def run_now(packet: bytes, fds: list[int]) -> None:
    """Do what a packet asks for, from fork to the end of the process that it is about."""
    leave_zygote()
    try:
        helper = Helper(launching.work)
    except OSError as error:
        refuse(packet, fds, error)
        return
    helper.begin(packet, fds)
    serve(packet, fds, helper, Loop())


def run_spare(
    source: socket.socket,
    helpers: Pair,
    ahead: Sequence[Span],
    lesson: Lesson | None,
    *,
    warm: bool,
) -> None:
    """Be ready for a packet: whatever takes time is done before it comes over `source`.

    The helper gets the same packet from the zygote over the first of `helpers`, the ends of its socket.
    `warm`: also what takes memory, the pages that the work will touch: `ahead`.
    """
    leave_zygote()
    try:
        helper = Helper(launching.work, helpers, ahead=ahead if warm else (), lesson=lesson)
    except OSError as error:
        refuse_next(source, error)
        return
    if lesson is not None:
        lesson.close()
    loop = Loop()
    loop.catch_children()
    if warm:
        rehearse()
    received = protocol.receive_packet(source)
    source.close()
    if received is not None:
        serve(*received, helper, loop)


def refuse_next(source: socket.socket, error: OSError) -> None:
    """Without a helper, whose socket is closed, nothing more is given to us; but something may be on its way."""
    source.settimeout(ON_ITS_WAY_S)
    try:
        received = protocol.receive_packet(source)
    except TimeoutError:
        return
    if received is not None:
        refuse(*received, error)


def refuse(packet: bytes, fds: list[int], error: OSError) -> None:
    """Tell the daemon that there will be no process; the descriptors stay the caller's."""
    control = fds[1] if packet[:1] == protocol.MEMFD else fds[0]
    with socket.socket(fileno=os.dup(control)) as sock:
        failure = {"stage": "fork", "message": f"fork: {error.strerror}", "errno": error.errno}
        protocol.send(sock, {"type": "begun"})
        protocol.send(sock, {"type": "failed", **failure})


def rehearse() -> None:
    """Take one message as every order is taken: the pages that this writes to are ours then.

    Copying them costs as much as all else that stands between an order and the helper. It takes no
    memory: they would be copied a moment later.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with ours, theirs:
        protocol.send(ours, REHEARSAL, [ours.fileno()])
        received = protocol.receive(theirs)
        if received is not None:
            message, fds = received
            SpawnOrder.from_dict({**message, **dict.fromkeys(SpawnOrder.__slots__)})
            protocol.close_all(fds)


def leave_zygote() -> None:
    """Be a session of one's own, that only SIGKILL ends.

    When a machine goes down everybody gets SIGTERM: the container may take its time, and its last
    words are logged.
    """
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    kernel.prctl(PR_SET_NAME, ctypes.addressof(SHIM_NAME))


def serve(packet: bytes, fds: list[int], helper: Helper, loop: Loop) -> None:
    """Do our part; the helper has the same packet, and has begun with its own."""
    message = protocol.decode(packet, fds)
    if message["type"] == "exec":
        serve_exec(message, fds, helper, loop)
    else:
        serve_container(message, fds, helper, loop)


def serve_container(message: Message, fds: list[int], helper: Helper, loop: Loop) -> None:
    order = SpawnOrder.from_dict(message["request"])
    streams = [StreamOptions.from_dict(each) for each in message["streams"]]
    shim = Shim(loop, order, socket.socket(fileno=fds[0]), helper)
    if shim.start(list(zip(fds[1:], streams, strict=True))):
        shim.serve()


def serve_exec(message: Message, fds: list[int], helper: Helper, loop: Loop) -> None:
    kernel.prctl(PR_SET_NAME, ctypes.addressof(KEEPER_NAME))
    order = ExecOrder.from_dict(message["order"])
    connection, container, *client = fds
    keeper = Keeper(loop, order, socket.socket(fileno=connection), container, helper)
    if keeper.start(client):
        keeper.serve()
