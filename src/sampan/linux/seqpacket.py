"""A pair of connected message sockets, with file descriptors passed along; see unix(7).

Built on `_socket`: the `socket` module above it brings enums and selectors, which cost the
command `sampan-oci` a third of its start.
"""

from __future__ import annotations

import _socket
import os
import struct

_AF_UNIX = _socket.AF_UNIX
_SEQPACKET = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
_MAXIMUM_BYTES = 1 << 17
_MAXIMUM_FDS = 16

Socket = _socket.socket


def pair() -> tuple[Socket, Socket]:
    """Two connected SOCK_SEQPACKET sockets, close-on-exec."""
    return _socket.socketpair(_AF_UNIX, _SEQPACKET)


def adopt(fd: int) -> Socket:
    """The connected socket that `fd` is, owned from here."""
    return _socket.socket(_AF_UNIX, _SEQPACKET, 0, fd)


def listen(path: str) -> Socket:
    """A listening socket bound to `path` with mode 0600, however long the path is."""
    sock = _socket.socket(_AF_UNIX, _SEQPACKET)
    directory, name = os.path.split(path)
    folder = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        former = os.umask(0o177)
        try:
            sock.bind(f"/proc/self/fd/{folder}/{name}")
        finally:
            os.umask(former)
    finally:
        os.close(folder)
    sock.listen(1)
    return sock


def accept(listener: Socket) -> Socket:
    """The next connection of a listening socket, close-on-exec."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]
    return _socket.socket(_AF_UNIX, _SEQPACKET, 0, fd)


def connect(path: str, *, stream: bool = False) -> Socket:
    """Connect to the listening socket at `path`, however long the path is.

    Raises:
        OSError: ECONNREFUSED where nobody listens, ENOENT where nothing is.
    """
    kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC if stream else _SEQPACKET
    sock = _socket.socket(_AF_UNIX, kind)
    directory, name = os.path.split(path)
    folder = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{name}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


def send(sock: Socket, message: bytes, fds: tuple[int, ...] = ()) -> None:
    """Send one message, with file descriptors; a peer that is gone raises BrokenPipeError."""
    if fds:
        rights = struct.pack(f"{len(fds)}i", *fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
        sock.sendmsg([message], ancillary, _socket.MSG_NOSIGNAL)
    else:
        sock.send(message, _socket.MSG_NOSIGNAL)


def receive(sock: Socket) -> tuple[bytes, list[int]]:
    """The next message and the (close-on-exec) descriptors with it; (b"", []) when the peer ended."""
    space = _socket.CMSG_SPACE(_MAXIMUM_FDS * 4)
    try:
        message, ancillary, _, _ = sock.recvmsg(_MAXIMUM_BYTES, space, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The peer closed without having read all that we sent. The kernel says so once, ahead of
        # what the peer sent before, which is still there: its last words.
        message, ancillary, _, _ = sock.recvmsg(_MAXIMUM_BYTES, space, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += struct.unpack(f"{len(data) // 4}i", data[: len(data) - len(data) % 4])
    return message, fds
