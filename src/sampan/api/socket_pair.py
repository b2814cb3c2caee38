"""A socket pair in place of a client's socket that cannot be handed over."""

from __future__ import annotations

import socket

from sampan.shim.streams import ClientStream


def socket_pair(head: bytes = b"") -> tuple[socket.socket, ClientStream]:
    """The near end for whoever relays, and the far end as the engine takes it, `head` having been
    received."""
    near, far = socket.socketpair()
    near.setblocking(False)
    return near, ClientStream(far, head=head)
