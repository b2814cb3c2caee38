"""Who is at the other end of a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from sampan.engine.requester import Requester

_UCRED = struct.Struct("=iII")  # struct ucred, unix(7): pid, uid, gid


def requester_of(transport: asyncio.BaseTransport) -> Requester | None:
    """The client of a connection; None where the kernel does not say.

    A unix socket's is the process that connected, as this one's PID namespace sees it (pid 0: not
    at all). It may have handed the socket on.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        try:
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        except OSError:
            return None
        pid, uid, gid = _UCRED.unpack(credentials)
        return Requester(uid=uid, gid=gid, pid=pid)
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple) or len(peer) < 2:
        return None
    host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
    certificate = subject_of(transport.get_extra_info("peercert") or {})
    return Requester(address=f"{host}:{peer[1]}", certificate=certificate)


def subject_of(certificate: dict[str, Any]) -> str:
    """The subject of a certificate that was verified, as `commonName=x,organizationName=y`; see
    ssl.SSLSocket.getpeercert. Empty without one."""
    return ",".join(
        f"{name}={value}" for part in certificate.get("subject", ()) for name, value in part
    )
