"""The wire of rtnetlink(7): requests packed, sent in one batch, their answers checked.

`_socket`, the C half of `socket`, is used on purpose: `socket` costs an OCI runtime's start two
milliseconds of `enum` and `selectors`, and nothing of them is needed here.

A request is `Request(type, flags, body, what)`; several of them go to the kernel in one
`sendmsg`, are carried out in order, and only the last asks for an acknowledgement: the kernel
reports errors unasked. Messages on the wire are in host byte order, `=` below.
"""

from __future__ import annotations

import _socket
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# linux/netlink.h
NETLINK_ROUTE = 0
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_CAPPED = 0x100
NLM_F_EXCL = 0x200
NLM_F_REPLACE = 0x100
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")
_U32 = struct.Struct("=I")
_DUMP_BYTES = 65536  # the kernel fills at most 32 KiB a datagram of a dump
_ANSWER_BYTES = 4096  # capped answers hold a header and a sentence


class Request:
    """One message for the kernel; `what` names it in an error."""

    __slots__ = ("body", "flags", "type", "what")

    def __init__(self, type: int, flags: int, body: bytes, what: str) -> None:
        self.type = type
        self.flags = flags
        self.body = body
        self.what = what


def attribute(type: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(len(value) + 4, type) + value + b"\0" * (-len(value) % 4)


def attribute_u32(type: int, value: int) -> bytes:
    """An attribute that holds an unsigned 32-bit number."""
    return attribute(type, _U32.pack(value))


def attribute_text(type: int, value: str) -> bytes:
    """An attribute that holds a NUL-terminated string."""
    return attribute(type, value.encode() + b"\0")


def nested(type: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(type | NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` to the end of `data`, by type; a repeated one: the last."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        length, type = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[type & NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def transact(requests: Sequence[Request]) -> None:
    """Carry out the requests in order, in the calling thread's network namespace.

    The kernel goes on after a request that failed; the first failure is raised.

    Raises:
        OSError: with the kernel's errno and, where it gives one, its own words.
    """
    if not requests:
        return
    last = len(requests)
    packed = [
        _pack(request, number, NLM_F_ACK if number == last else 0)
        for number, request in enumerate(requests, 1)
    ]
    sock = _open()
    try:
        sock.send(b"".join(packed))
        failure: OSError | None = None
        while True:
            for type, flags, sequence, body in messages(sock.recv(_ANSWER_BYTES)):
                if type != NLMSG_ERROR:
                    continue
                (code,) = _ERROR.unpack_from(body)
                if code and failure is None:
                    failure = _failure(-code, flags, body, requests[sequence - 1])
                if sequence == last:
                    if failure is not None:
                        raise failure
                    return
    finally:
        sock.close()


def dump(request: Request) -> list[bytes]:
    """The bodies of all messages a dump request is answered with.

    A dump that the kernel says was overtaken by a change is asked for again.
    """
    while True:
        bodies = _dump_once(request)
        if bodies is not None:
            return bodies


def _dump_once(request: Request) -> list[bytes] | None:
    bodies: list[bytes] = []
    consistent = True
    sock = _open()
    try:
        sock.send(_pack(request, 1, NLM_F_DUMP))
        while True:
            for type, flags, _, body in messages(sock.recv(_DUMP_BYTES)):
                consistent = consistent and not flags & NLM_F_DUMP_INTR
                if type == NLMSG_DONE:
                    return bodies if consistent else None
                if type == NLMSG_ERROR:
                    (code,) = _ERROR.unpack_from(body)
                    raise _failure(-code, flags, body, request)
                bodies.append(body)
    finally:
        sock.close()


def _open() -> _socket.socket:
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, NETLINK_ROUTE)
    sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    return sock


def _pack(request: Request, sequence: int, flags: int) -> bytes:
    body = request.body
    length = _HEADER.size + len(body)
    flags |= NLM_F_REQUEST | request.flags
    return _HEADER.pack(length, request.type, flags, sequence, 0) + body + b"\0" * (-length % 4)


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, type, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield type, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _failure(errno: int, flags: int, body: bytes, request: Request) -> OSError:
    """The error a request was answered with, in the kernel's own words where it has any."""
    words = os.strerror(errno)
    if flags & NLM_F_ACK_TLVS:
        # The capped answer repeats the request's header alone, then come the attributes.
        skip = _ERROR.size + _HEADER.size
        if not flags & NLM_F_CAPPED:
            skip += (len(request.body) + 3) & ~3
        text = attributes(body, skip).get(NLMSGERR_ATTR_MSG)
        if text:
            words = f"{words} ({text.rstrip(bytes(1)).decode(errors='replace')})"
    return OSError(errno, f"{request.what}: {words}")
