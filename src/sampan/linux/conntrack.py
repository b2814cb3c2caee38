"""The kernel's table of connections: those that an address opened, and forgetting some of them.

Source: linux/netfilter/{nfnetlink,nfnetlink_conntrack}.h.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.linux.rtnetlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    messages,
)

# linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_conntrack.h
CTA_ID = 12
CTA_IP_V4_DST = 2
CTA_IP_V4_SRC = 1
CTA_IP_V6_DST = 4
CTA_IP_V6_SRC = 3
CTA_PROTO_DST_PORT = 3
CTA_PROTO_NUM = 1
CTA_TUPLE_IP = 1
CTA_TUPLE_ORIG = 1
CTA_TUPLE_PROTO = 2
IPCTNL_MSG_CT_DELETE = 2
IPCTNL_MSG_CT_GET = 1
NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
NLA_F_NESTED = 0x8000

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NFGENMSG_BYTES = 4
_ANSWER_BYTES = 65536


@dataclass(frozen=True, slots=True)
class TrackedConnection:
    """A connection as it was opened: where to (packed address), by which protocol, to which port."""

    destination: bytes
    protocol: int
    port: int
    tuple: bytes
    identity: bytes


def opened_by(source: bytes) -> list[TrackedConnection]:
    """The connections that a packed address opened, in the calling thread's network namespace.

    Raises:
        OSError: the kernel does not tell; EINVAL without connection tracking.
    """
    family = _socket.AF_INET if len(source) == 4 else _socket.AF_INET6
    found: list[TrackedConnection] = []
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, NETLINK_NETFILTER)
    try:
        sock.send(_message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, family, b""))
        while True:
            for type, _, _, body in messages(sock.recv(_ANSWER_BYTES)):
                if type == NLMSG_DONE:
                    return found
                if type == NLMSG_ERROR:
                    _check(body)
                elif source in body and (connection := _tracked(body, source)) is not None:
                    found.append(connection)
    finally:
        sock.close()


def forget(connections: Iterable[TrackedConnection]) -> None:
    """Take them out of the table: their next packet is that of a new connection.

    Raises:
        OSError: the kernel refused; those that are gone already are no reason.
    """
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, NETLINK_NETFILTER)
    try:
        for connection in connections:
            family = _socket.AF_INET if len(connection.destination) == 4 else _socket.AF_INET6
            body = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, connection.tuple)
            body += attribute(CTA_ID, connection.identity)
            sock.send(_message(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, family, body))
            for type, _, _, answer in messages(sock.recv(_ANSWER_BYTES)):
                if type == NLMSG_ERROR:
                    _check(answer, missing_ok=True)
    finally:
        sock.close()


def _tracked(body: bytes, source: bytes) -> TrackedConnection | None:
    values = attributes(body, _NFGENMSG_BYTES)
    original = values.get(CTA_TUPLE_ORIG, b"")
    parts = attributes(original)
    address = attributes(parts.get(CTA_TUPLE_IP, b""))
    protocol = attributes(parts.get(CTA_TUPLE_PROTO, b""))
    is_4 = len(source) == 4
    if address.get(CTA_IP_V4_SRC if is_4 else CTA_IP_V6_SRC) != source:
        return None
    return TrackedConnection(
        destination=address.get(CTA_IP_V4_DST if is_4 else CTA_IP_V6_DST, b""),
        protocol=int.from_bytes(protocol.get(CTA_PROTO_NUM, b""), "big"),
        port=int.from_bytes(protocol.get(CTA_PROTO_DST_PORT, b""), "big"),
        tuple=original,
        identity=values.get(CTA_ID, b""),
    )


def _message(type: int, flags: int, family: int, body: bytes) -> bytes:
    length = _HEADER.size + _NFGENMSG_BYTES + len(body)
    head = _HEADER.pack(length, NFNL_SUBSYS_CTNETLINK << 8 | type, NLM_F_REQUEST | flags, 1, 0)
    return head + bytes([family, 0, 0, 0]) + body


def _check(answer: bytes, *, missing_ok: bool = False) -> None:
    (code,) = struct.unpack_from("=i", answer)
    if code and not (missing_ok and -code == errno.ENOENT):
        raise OSError(-code, f"connection tracking: {os.strerror(-code)}")
