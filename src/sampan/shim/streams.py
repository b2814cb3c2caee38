"""A client's socket on its way from the API to the shim that will serve it."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from sampan.shim.protocol import CLOSED, DETACHED, ENDED, StreamOptions

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["CLOSED", "DEFAULT_DETACH_KEYS", "DETACHED", "ENDED", "ClientStream"]

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q, as docker's


class ClientStream:
    """An owned, connected stream socket and what goes over it.

    `sock` is the engine's own (a duplicate made by whoever hijacked the connection): giving the
    stream to `Zygote.spawn` or `ShimConnection.attach` hands it over, and it is closed here in every
    case, success or failure; `ShimConnection.exec` closes it on success only. `head` is what the client sent before the hand-over.
    `raw` is for terminals: no 8-byte frame headers, and `detach_keys` are looked for in the input
    (empty: never). `on_end` is called once in the daemon with ENDED, DETACHED or CLOSED when the shim
    has done with the stream; not after the daemon restarted.
    """

    __slots__ = ("detach_keys", "head", "on_end", "raw", "sock", "stderr", "stdin", "stdout")

    def __init__(
        self,
        sock: socket.socket,
        *,
        head: bytes = b"",
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        raw: bool = False,
        detach_keys: bytes = DEFAULT_DETACH_KEYS,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        self.sock = sock
        self.head = head
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.raw = raw
        self.detach_keys = detach_keys
        self.on_end = on_end

    def options(self, number: int) -> StreamOptions:
        """The stream as the shim is told of it, under the number of the one connection's choice."""
        return StreamOptions(
            number=number,
            stdin=self.stdin,
            stdout=self.stdout,
            stderr=self.stderr,
            raw=self.raw,
            head=binascii.b2a_base64(self.head, newline=False).decode(),
            detach_keys=self.detach_keys.hex(),
        )

    def close(self) -> None:
        """Close this process's hold on the socket; the connection lives on where it was handed over."""
        self.sock.close()
