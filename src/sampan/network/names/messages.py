"""DNS messages as far as a forwarder needs them: questions taken apart, answers put together.

Bytes in, bytes out, no I/O; everything that comes in is hostile. Answers of other servers are passed
on as they are, so only their addresses are ever looked for. Sources: RFC 1035 (4.1), RFC 6891 (6.1).
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

A = 1
CNAME = 5
PTR = 12
AAAA = 28
OPT = 41
IN = 1

NOERROR = 0
FORMERR = 1
SERVFAIL = 2
NXDOMAIN = 3
NOTIMP = 4
REFUSED = 5

HEADER_BYTES = 12
UDP_BYTES = 512  # what a client takes that does not say
EDNS_UDP_BYTES = 1232  # what we take: no fragments over IPv6's least MTU
TCP_BYTES = 65535
TTL_S = 600  # docker's for its own answers

_QR = 0x8000
_TC = 0x0200
_RD = 0x0100
_RA = 0x0080
_OPCODE = 0x7800
_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHHIH")  # name (a pointer), type, class, TTL, length
_FIXED = struct.Struct(">HHIH")  # type, class, TTL, length
_QUESTION_NAME = 0xC00C  # a pointer to the name in the question
_OPT_RECORD = b"\0" + _FIXED.pack(OPT, EDNS_UDP_BYTES, 0, 0)
_NAME_BYTES = 255
_ADDITIONAL_MAX = 8


class Malformed(Exception):
    """A message that cannot be answered as it should; `rcode` says how it is answered, -1: not at all."""

    def __init__(self, rcode: int) -> None:
        super().__init__(rcode)
        self.rcode = rcode


class Question:
    """What a query asks: `name` in lower case without the last dot, numbers as in the registry.

    `end` is where the question ends in the message, `limit` the size of answer that the client takes
    over UDP, `edns` whether it said so.
    """

    __slots__ = ("edns", "end", "limit", "name", "qclass", "qtype")

    def __init__(self, name: str, qtype: int, qclass: int, end: int) -> None:
        self.name = name
        self.qtype = qtype
        self.qclass = qclass
        self.end = end
        self.edns = False
        self.limit = UDP_BYTES


def question(query: bytes) -> Question:
    """Take a query apart.

    Raises:
        Malformed: it is none, or not one question.
    """
    if len(query) < HEADER_BYTES:
        raise Malformed(-1)
    _, flags, questions, answers, authorities, additional = _HEADER.unpack_from(query)
    if flags & _QR:
        raise Malformed(-1)  # an answer: to answer those makes loops
    if flags & _OPCODE:
        raise Malformed(NOTIMP)
    if questions != 1 or answers or authorities:
        raise Malformed(FORMERR)
    name, at = _plain_name(query)
    if at + 4 > len(query):
        raise Malformed(FORMERR)
    qtype, qclass = struct.unpack_from(">HH", query, at)
    asked = Question(name, qtype, qclass, at + 4)
    if additional:
        _look_for_edns(asked, query, additional)
    return asked


def _plain_name(query: bytes) -> tuple[str, int]:
    """The name of the question, and where it ends.

    Dots and backslashes inside labels are written `\\046` and `\\092`, so that no name reads like another.
    """
    at, labels = HEADER_BYTES, []
    while True:
        if at >= len(query):
            raise Malformed(FORMERR)
        length = query[at]
        if not length:
            break
        if length > 63 or at + length - HEADER_BYTES > _NAME_BYTES:
            raise Malformed(FORMERR)  # a pointer has nowhere to point to
        label = query[at + 1 : at + 1 + length]
        if len(label) < length:
            raise Malformed(FORMERR)
        if b"." in label or b"\\" in label:
            label = label.replace(b"\\", b"\\092").replace(b".", b"\\046")
        labels.append(label)
        at += 1 + length
    return b".".join(labels).lower().decode("latin-1"), at + 1


def _look_for_edns(asked: Question, query: bytes, additional: int) -> None:
    """Note the size that the client takes. What comes behind a record that is broken does not count."""
    at = asked.end
    for _ in range(min(additional, _ADDITIONAL_MAX)):
        at = _skip_name(query, at)
        if at < 0 or at + 10 > len(query):
            return
        kind, size, _, length = _FIXED.unpack_from(query, at)
        if kind == OPT:
            asked.edns = True
            asked.limit = max(UDP_BYTES, min(size, 4096))
            return
        at += 10 + length


def _skip_name(message: bytes, at: int) -> int:
    """Where a name, compressed or not, ends in the message; -1 if it does not."""
    size = len(message)
    while at < size:
        length = message[at]
        if length >= 0xC0:
            return at + 2
        if length > 63:
            return -1
        at += 1 + length
        if not length:
            return at
    return -1


def answer(
    query: bytes, asked: Question, kind: int, values: Sequence[bytes], limit: int = TCP_BYTES
) -> bytes:
    """The answer with records of one type; with none it says that there are none (NODATA).

    Of more than `limit` takes (less the room for EDNS) the first are sent, marked as cut short.
    """
    (flags,) = struct.unpack_from(">H", query, 2)
    room = limit - asked.end - len(_OPT_RECORD)
    parts = []
    for value in values:
        room -= 12 + len(value)
        if room < 0:
            break
        parts.append(_RECORD.pack(_QUESTION_NAME, kind, IN, TTL_S, len(value)) + value)
    flags = _QR | (flags & _RD) | _RA | (_TC if len(parts) < len(values) else 0)
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(parts), 0, int(asked.edns))
    edns = _OPT_RECORD if asked.edns else b""
    return head + query[HEADER_BYTES : asked.end] + b"".join(parts) + edns


def failure(query: bytes, rcode: int, asked: Question | None = None) -> bytes:
    """An answer that says no; with the question, if it could be read."""
    (flags,) = struct.unpack_from(">H", query, 2)
    flags = _QR | (flags & (_RD | _OPCODE)) | _RA | rcode
    if asked is None:
        return query[:2] + struct.pack(">HHHHH", flags, 0, 0, 0, 0)
    head = query[:2] + struct.pack(">HHHHH", flags, 1, 0, 0, int(asked.edns))
    return head + query[HEADER_BYTES : asked.end] + (_OPT_RECORD if asked.edns else b"")


def answers(query: bytes, asked: Question, message: bytes) -> bool:
    """Whether a server's message is the answer to this query: ID and question are the same."""
    return (
        len(message) >= HEADER_BYTES
        and message[:2] == query[:2]
        and bool(message[2] & 0x80)
        and (
            message[HEADER_BYTES : asked.end].lower() == query[HEADER_BYTES : asked.end].lower()
            if message[4:6] == b"\0\1"
            else message[4:6] == b"\0\0"  # servers that fail do not all repeat it
        )
    )


def rcode(message: bytes) -> int:
    """The response code of an answer, without EDNS's extension."""
    return message[3] & 0x0F


def addresses(message: bytes) -> list[tuple[bytes, int]]:
    """(address, TTL in seconds) of all A and AAAA records of an answer.

    Raises:
        Malformed: it is cut short, or its records do not end where it does.
    """
    _, _, questions, count, _, _ = _HEADER.unpack_from(message)
    at = HEADER_BYTES
    for _ in range(questions):
        at = _skip_name(message, at)
        if at < 0:
            raise Malformed(SERVFAIL)
        at += 4
    found = []
    for _ in range(count):
        at = _skip_name(message, at)
        if at < 0 or at + 10 > len(message):
            raise Malformed(SERVFAIL)
        kind, _, ttl, length = _FIXED.unpack_from(message, at)
        at += 10
        value = message[at : at + length]
        if len(value) < length:
            raise Malformed(SERVFAIL)
        if (kind, length) in ((A, 4), (AAAA, 16)):
            found.append((value, 0 if ttl & 0x80000000 else ttl))
        at += length
    return found


def wire_name(name: str) -> bytes:
    """A name as its labels, uncompressed; labels of more than 63 bytes are cut."""
    labels = [label.encode("utf-8", "replace")[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels)[: _NAME_BYTES - 1] + b"\0"


def reversed_address(name: str) -> bytes | None:
    """The address that a name under in-addr.arpa or ip6.arpa stands for; None for any other name."""
    try:
        if name.endswith(".in-addr.arpa"):
            parts = name[: -len(".in-addr.arpa")].split(".")
            numbers = [int(part) for part in reversed(parts) if part.isascii() and part.isdigit()]
            return bytes(numbers) if len(numbers) == len(parts) == 4 else None
        if name.endswith(".ip6.arpa"):
            nibbles = name[: -len(".ip6.arpa")].split(".")
            if len(nibbles) == 32 and all(len(nibble) == 1 for nibble in nibbles):
                return bytes.fromhex("".join(reversed(nibbles)))
    except ValueError:
        pass
    return None
