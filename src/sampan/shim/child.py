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
from sampan.shim.process import Shim
from sampan.shim.protocol import SpawnOrder, StreamOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.shim.protocol import Message

PR_SET_NAME = 15  # linux/prctl.h
SHIM_NAME = ctypes.create_string_buffer(b"sampan-shim")
KEEPER_NAME = ctypes.create_string_buffer(b"sampan-exec")


def run_now(packet: bytes, fds: list[int]) -> None:
    """Do what a packet asks for, from fork to the end of the process that it is about."""
    leave_zygote()
    serve(packet, fds, Helper(launching.work))


def run_spare(source: socket.socket) -> None:
    """Be ready for a packet: whatever takes time is done before it comes over `source`."""
    leave_zygote()
    helper = Helper(launching.work, ahead=True)
    received = protocol.receive_packet(source)
    source.close()
    if received is not None:
        serve(*received, helper)


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


def serve(packet: bytes, fds: list[int], helper: Helper) -> None:
    """The helper gets the packet as it came, with what of its descriptors it needs."""
    body = [os.dup(fds[0])] if packet[:1] == protocol.MEMFD else []
    message = protocol.decode(packet, fds)
    is_exec = message["type"] == "exec"
    helper.begin(packet, [*body, fds[1]] if is_exec else body)
    protocol.close_all(body)
    if is_exec:
        serve_exec(message, fds, helper)
    else:
        serve_container(message, fds, helper)


def serve_container(message: Message, fds: list[int], helper: Helper) -> None:
    order = SpawnOrder.from_dict(message["request"])
    streams = [StreamOptions.from_dict(each) for each in message["streams"]]
    shim = Shim(order, socket.socket(fileno=fds[0]), helper)
    if shim.start(list(zip(fds[1:], streams, strict=True))):
        shim.serve()


def serve_exec(message: Message, fds: list[int], helper: Helper) -> None:
    kernel.prctl(PR_SET_NAME, ctypes.addressof(KEEPER_NAME))
    order = ExecOrder.from_dict(message["order"])
    connection, container, *client = fds
    keeper = Keeper(order, socket.socket(fileno=connection), container, helper)
    if keeper.start(client):
        keeper.serve()
