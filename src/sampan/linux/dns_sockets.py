"""The two sockets by which a network namespace is served names at 127.0.0.11 port 53.

They are bound to a port of the kernel's choice, so that port 53 stays free for a name server that the
container runs itself. What the container sends to 127.0.0.11:53 has its port rewritten on the way out,
and so have the answers, by four rules of nftables in that namespace:

    output, before all else   ip daddr 127.0.0.11 udp dport 53   udp dport set PORT    (and tcp)
    output, after all else    ip saddr 127.0.0.11 udp sport PORT udp sport set 53      (and tcp)

Packets are rewritten one by one: nothing is tracked, nothing times out, no state can run full. The
order lets connection tracking, where the container has it, see PORT both ways.

Sources: linux/netfilter/nf_tables.h, nfnetlink.h; net/netfilter/nft_payload.c.
"""

from __future__ import annotations

import _socket
import os
import struct
from errno import EADDRINUSE, ENOENT

from sampan.linux.rtnetlink import attribute, attribute_text, attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.linux.seqpacket import Socket

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "sampan-names"
_ADDRESS_BYTES = bytes((127, 0, 0, 11))

# linux/netlink.h, linux/netfilter/nfnetlink.h
_NETLINK_NETFILTER = 12
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 0x001
_NLM_F_ACK = 0x004
_NLM_F_EXCL = 0x200
_NLM_F_CREATE = 0x400
_NLM_F_APPEND = 0x800
_NFNL_SUBSYS_NFTABLES = 10
_NFNL_MSG_BATCH_BEGIN = 0x10
_NFNL_MSG_BATCH_END = 0x11
# linux/netfilter/nf_tables.h
_NFT_MSG_NEWTABLE = 0
_NFT_MSG_GETTABLE = 1
_NFT_MSG_DELTABLE = 2
_NFT_MSG_NEWCHAIN = 3
_NFT_MSG_NEWRULE = 6
_NFTA_TABLE_USERDATA = 6
_NFT_META_L4PROTO = 16
_NFT_PAYLOAD_NETWORK_HEADER = 1
_NFT_PAYLOAD_TRANSPORT_HEADER = 2
_NFT_PAYLOAD_CSUM_INET = 1
_NFT_REG_1 = 1
_NF_INET_LOCAL_OUT = 3
_FIRST = -300  # raw: before connection tracking
_LAST = 300

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ERROR = struct.Struct("=i")
_ANSWER_BYTES = 8192  # an acknowledgement, or an error that repeats a message of the transaction
_BACKLOG = 128
_TRIES = 16

# (protocol, where its checksum is): the ports are in the first four bytes of both.
_PROTOCOLS = ((_socket.IPPROTO_UDP, 6), (_socket.IPPROTO_TCP, 16))


def open_sockets(*, replace: bool = False) -> tuple[Socket, Socket]:
    """A UDP socket and a listening TCP socket, close-on-exec and non-blocking, that are asked at 127.0.0.11:53.

    Works on the calling thread's network namespace, a new one whose loopback is up; takes 0.2 ms.
    `replace`: rules of former sockets may be there.

    Raises:
        OSError: EEXIST, there are rules already; or what else the kernel has against them.
    """
    udp, tcp = bind()
    try:
        install(udp.getsockname()[1], replace=replace)
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


def reopen_sockets() -> tuple[Socket, Socket]:
    """As `open_sockets`, in a network namespace that may have had such sockets before.

    Their port is taken again if it is free; else the rules are replaced, which waits 10 ms for the
    kernel to give up the old ones.
    """
    try:
        port = installed_port()
    except FileNotFoundError:
        return open_sockets()
    try:
        return bind(port)
    except OSError:  # somebody else has it by now
        return open_sockets(replace=True)


def bind(port: int = 0) -> tuple[Socket, Socket]:
    """Both sockets on one port of 127.0.0.11: the given one, or any.

    Raises:
        OSError: EADDRINUSE.
    """
    kind = _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    for _ in range(1 if port else _TRIES):
        udp = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | kind)
        tcp = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | kind)
        try:
            udp.bind((ADDRESS, port))
            tcp.bind((ADDRESS, udp.getsockname()[1]))
            tcp.listen(_BACKLOG)
        except OSError as error:
            udp.close()
            tcp.close()
            if error.errno != EADDRINUSE:
                raise
            continue
        return udp, tcp
    raise OSError(EADDRINUSE, f"bind {ADDRESS}: no port is free for both protocols")


def install(port: int, *, replace: bool = False) -> None:
    """Set the rules for sockets bound to `port`, in the calling thread's network namespace.

    Raises:
        FileExistsError: there are some already, and they are not to be replaced.
        OSError: the kernel's reason.
    """
    template = _REPLACEMENT if replace else _FIRST_TIME
    _transact(template.with_port(port), template.last)


def installed_port() -> int:
    """The port that the rules of this network namespace lead to.

    Raises:
        OSError: ENOENT, there are none.
    """
    head = struct.pack(">BBH", _socket.AF_INET, 0, 0)
    kind = _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_GETTABLE
    body = _transact(_pack(kind, _NLM_F_ACK, 1, head + attribute_text(1, TABLE)), 1)
    found = attributes(body, len(head)).get(_NFTA_TABLE_USERDATA, b"")
    if len(found) != 2:
        raise OSError(ENOENT, f"rules for {ADDRESS}: {os.strerror(ENOENT)}")
    return int.from_bytes(found, "big")


def _transact(message: bytes, last: int) -> bytes:
    """Send what is acknowledged with the sequence number `last`; the body that came before, if any."""
    sock = _socket.socket(
        _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
    )
    body = b""
    try:
        sock.send(message)
        while True:
            answer = sock.recv(_ANSWER_BYTES)
            _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
            if kind != _NLMSG_ERROR:
                body = answer[_HEADER.size :]
                continue
            (code,) = _ERROR.unpack_from(answer, _HEADER.size)
            if code:
                raise OSError(-code, f"rules for {ADDRESS}: {os.strerror(-code)}")
            if sequence == last:
                return body
    finally:
        sock.close()


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, attribute_text(1, name), nested(2, *attributes))


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload", _u32(1, _NFT_REG_1), _u32(2, base), _u32(3, offset), _u32(4, length)
    )


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _u32(1, _NFT_REG_1), _u32(2, 0), nested(3, attribute(1, value)))


def _rule(
    chain: str, address_at: int, port_at: int, protocol: int, checksum_at: int, old: int, new: int
) -> bytes:
    """Packets of 127.0.0.11 whose port at `port_at` is `old` get `new` there."""
    expressions = (
        _load(_NFT_PAYLOAD_NETWORK_HEADER, address_at, 4),
        _equals(_ADDRESS_BYTES),
        _expression("meta", _u32(1, _NFT_REG_1), _u32(2, _NFT_META_L4PROTO)),
        _equals(bytes([protocol])),
        _load(_NFT_PAYLOAD_TRANSPORT_HEADER, port_at, 2),
        _equals(old.to_bytes(2, "big")),
        _expression(
            "immediate", _u32(1, _NFT_REG_1), nested(2, attribute(1, new.to_bytes(2, "big")))
        ),
        _expression(
            "payload",
            _u32(5, _NFT_REG_1),
            _u32(2, _NFT_PAYLOAD_TRANSPORT_HEADER),
            _u32(3, port_at),
            _u32(4, 2),
            _u32(6, _NFT_PAYLOAD_CSUM_INET),
            _u32(7, checksum_at),
            _u32(8, 0),
        ),
    )
    return attribute_text(1, TABLE) + attribute_text(2, chain) + nested(4, *expressions)


def _chain(name: str, priority: int) -> bytes:
    hook = nested(4, _u32(1, _NF_INET_LOCAL_OUT), _u32(2, priority))
    return attribute_text(1, TABLE) + attribute_text(3, name) + hook + attribute_text(7, "filter")


def _messages(port: int, *, replace: bool) -> Iterable[tuple[int, int, bytes]]:
    """(type, flags, body) of all that makes the table."""
    name = attribute_text(1, TABLE)
    table = name + attribute(_NFTA_TABLE_USERDATA, port.to_bytes(2, "big"))
    if replace:
        yield _NFT_MSG_NEWTABLE, _NLM_F_CREATE, name
        yield _NFT_MSG_DELTABLE, 0, name
    yield _NFT_MSG_NEWTABLE, _NLM_F_CREATE | _NLM_F_EXCL, table
    yield _NFT_MSG_NEWCHAIN, _NLM_F_CREATE, _chain("asked", _FIRST)
    yield _NFT_MSG_NEWCHAIN, _NLM_F_CREATE, _chain("answered", _LAST)
    create = _NLM_F_CREATE | _NLM_F_APPEND
    for protocol, checksum_at in _PROTOCOLS:
        asked = _rule("asked", 16, 2, protocol, checksum_at, PORT, port)
        answered = _rule("answered", 12, 0, protocol, checksum_at, port, PORT)
        yield _NFT_MSG_NEWRULE, create, asked
        yield _NFT_MSG_NEWRULE, create, answered


def _batch(port: int, *, replace: bool) -> tuple[bytes, int]:
    """One transaction as it goes over the wire, and the sequence number that is acknowledged."""
    messages = list(_messages(port, replace=replace))
    edge = struct.pack(">BBH", _socket.AF_UNSPEC, 0, _NFNL_SUBSYS_NFTABLES)
    parts = [_pack(_NFNL_MSG_BATCH_BEGIN, 0, 0, edge)]
    head = struct.pack(">BBH", _socket.AF_INET, 0, 0)
    for number, (kind, flags, body) in enumerate(messages, 1):
        flags |= _NLM_F_ACK if number == len(messages) else 0
        parts.append(_pack(_NFNL_SUBSYS_NFTABLES << 8 | kind, flags, number, head + body))
    parts.append(_pack(_NFNL_MSG_BATCH_END, 0, len(messages) + 1, edge))
    return b"".join(parts), len(messages)


def _pack(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(len(body) + 16, kind, flags | _NLM_F_REQUEST, sequence, 0) + body


class _Template:
    """A transaction whose port is filled in where it is needed.

    Built once, in the zygote, which shares it: a start copies 2 KiB instead of packing 60 attributes.
    """

    __slots__ = ("_bytes", "_places", "last")

    def __init__(self, *, replace: bool) -> None:
        self._bytes, self.last = _batch(0, replace=replace)
        other, _ = _batch(0xFFFF, replace=replace)
        # Two bytes differ for each port.
        self._places = [
            at for at, (a, b) in enumerate(zip(self._bytes, other, strict=True)) if a != b
        ][::2]

    def with_port(self, port: int) -> bytes:
        message = bytearray(self._bytes)
        for place in self._places:
            message[place : place + 2] = port.to_bytes(2, "big")
        return bytes(message)


_FIRST_TIME = _Template(replace=False)
_REPLACEMENT = _Template(replace=True)
