"""Expressions: what a rule of nf_tables is made of, for `nfnetlink.new_rule`.

Each loads into a register, compares one, or acts. `REGISTER` is the first; the others follow it in
steps of four bytes from `REGISTER32` on. Values are bytes in network order.

    # udp dport 53 → udp dport 4711, without connection tracking
    [meta(META_L4PROTO), equal(b"\\x11"),
     payload(TRANSPORT, 2, 2), equal(b"\\x00\\x35"),
     immediate(b"\\x12\\x67"), set_payload(TRANSPORT, 2, 2, checksum=6)]

Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct

from sampan.linux.nfnetlink import NFTA_DATA_VALUE, NFTA_LIST_ELEM, verdict
from sampan.linux.rtnetlink import attribute, attribute_text, nested

# Registers: of 16 bytes, and of 4 bytes (which share their room, four to one).
REGISTER = 1
REGISTER32 = 8
VERDICT_REGISTER = 0

# enum nft_payload_bases
LINK, NETWORK, TRANSPORT = 0, 1, 2

# enum nft_meta_keys
META_MARK = 3
META_IIF = 4
META_OIF = 5
META_IIFNAME = 6
META_OIFNAME = 7
META_NFPROTO = 15
META_L4PROTO = 16

# enum nft_ct_keys
CT_STATE = 0
CT_STATUS = 2

_NFTA_EXPR_NAME, _NFTA_EXPR_DATA = 1, 2
_NFT_CMP_EQ, _NFT_CMP_NEQ = 0, 1
_NFT_PAYLOAD_CSUM_INET = 1
_NFT_PAYLOAD_L4CSUM_PSEUDOHDR = 1

_U32 = struct.Struct(">I")


def meta(key: int, register: int = REGISTER) -> bytes:
    """Load what is known of the packet beside its bytes."""
    return _expression("meta", _number(2, key), _number(1, register))


def set_mark(register: int = REGISTER) -> bytes:
    """Give the packet the mark in the register."""
    return _expression("meta", _number(2, META_MARK), _number(3, register))


def conntrack(key: int, register: int = REGISTER) -> bytes:
    """Load what connection tracking knows; CT_STATE is in host byte order."""
    return _expression("ct", _number(2, key), _number(1, register))


def payload(base: int, offset: int, length: int, register: int = REGISTER) -> bytes:
    """Load bytes of the packet, from the start of the header `base` on."""
    return _expression(
        "payload", _number(1, register), _number(2, base), _number(3, offset), _number(4, length)
    )


def set_payload(
    base: int,
    offset: int,
    length: int,
    *,
    checksum: int | None = None,
    pseudo_header: bool = False,
    register: int = REGISTER,
) -> bytes:
    """Write the register into the packet.

    `checksum` is the offset of the header's own checksum, corrected with it (UDP 6, TCP 16, IPv4
    10); `pseudo_header`: the transport's checksum covers these bytes too (addresses).
    """
    parts = [_number(5, register), _number(2, base), _number(3, offset), _number(4, length)]
    if checksum is not None:
        parts += [_number(6, _NFT_PAYLOAD_CSUM_INET), _number(7, checksum)]
    if pseudo_header:
        parts.append(_number(8, _NFT_PAYLOAD_L4CSUM_PSEUDOHDR))
    return _expression("payload", *parts)


def equal(value: bytes, register: int = REGISTER) -> bytes:
    """Go on with this rule only if the register holds the value."""
    return _compare(_NFT_CMP_EQ, value, register)


def unequal(value: bytes, register: int = REGISTER) -> bytes:
    """Go on with this rule only if the register does not hold the value."""
    return _compare(_NFT_CMP_NEQ, value, register)


def masked(mask: bytes, register: int = REGISTER) -> bytes:
    """Keep only the mask's bits of the register."""
    zero = bytes(len(mask))
    return _expression(
        "bitwise",
        _number(1, register),
        _number(2, register),
        _number(3, len(mask)),
        nested(4, attribute(NFTA_DATA_VALUE, mask)),
        nested(5, attribute(NFTA_DATA_VALUE, zero)),
    )


def lookup(name: str, register: int = REGISTER, into: int | None = None) -> bytes:
    """Go on only if the set has the register; `into` gets a map's data (0: a verdict map's)."""
    parts = [attribute_text(1, name), _number(2, register)]
    if into is not None:
        parts.append(_number(3, into))
    return _expression("lookup", *parts)


def immediate(value: bytes, register: int = REGISTER) -> bytes:
    """Load a constant."""
    return _expression(
        "immediate", _number(1, register), nested(2, attribute(NFTA_DATA_VALUE, value))
    )


def decide(code: int, chain: str = "") -> bytes:
    """End with a verdict: NF_ACCEPT, NF_DROP, NFT_RETURN, NFT_JUMP or NFT_GOTO to `chain`."""
    return _expression("immediate", _number(1, VERDICT_REGISTER), nested(2, verdict(code, chain)))


def counter() -> bytes:
    """Count packets and bytes."""
    return _expression("counter")


def untrack() -> bytes:
    """Keep the packet out of connection tracking; at hooks before it (priority -300)."""
    return _expression("notrack")


def _compare(operation: int, value: bytes, register: int) -> bytes:
    return _expression(
        "cmp",
        _number(1, register),
        _number(2, operation),
        nested(3, attribute(NFTA_DATA_VALUE, value)),
    )


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(
        NFTA_LIST_ELEM, attribute_text(_NFTA_EXPR_NAME, name), nested(_NFTA_EXPR_DATA, *parts)
    )


def _number(type: int, value: int) -> bytes:
    return attribute(type, _U32.pack(value))
