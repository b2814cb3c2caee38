"""Changing the packet filter by nf_tables' own messages: no library, no process, no text to parse.

A change is a list of messages that the kernel carries out as one transaction: all of them or none.

    transact([
        new_element(NFPROTO_INET, "sampan", "bridges", [Element(interface_key("br0"))]),
        delete_element(NFPROTO_IPV4, "sampan", "ports", [Element(key)]),
    ])

An element's key and data are bytes as the kernel keeps them: numbers in network order, each field of a
concatenation padded to four bytes (`field`), interface names to sixteen. Whole small rule sets are
made of `new_table`, `new_chain`, `new_set` and `new_rule`, with expressions from `nftexpr`; a rule set
that never changes is packed once (`pack`) and sent as bytes (`send`). A transaction of a few elements
takes some 50 µs. Who deletes keeps a `Connection` open.

`_socket` and no typing at run time: an init in a container's namespace uses this, too.
Source: linux/netfilter/{nfnetlink,nf_tables}.h, net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from sampan.linux.rtnetlink import (
    NETLINK_CAP_ACK,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    attribute,
    attribute_text,
    attributes,
    messages,
    nested,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# linux/netfilter.h
NFPROTO_INET = 1
NFPROTO_IPV4 = 2
NFPROTO_BRIDGE = 7
NFPROTO_IPV6 = 10
NF_INET_PRE_ROUTING = 0
NF_INET_LOCAL_IN = 1
NF_INET_FORWARD = 2
NF_INET_LOCAL_OUT = 3
NF_INET_POST_ROUTING = 4

# linux/netlink.h, linux/netfilter/nfnetlink.h
NETLINK_NETFILTER = 12
NLM_F_REQUEST = 0x001
NLM_F_ECHO = 0x008
NLM_F_APPEND = 0x800
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11

# linux/netfilter/nf_tables.h
NFTA_CHAIN_HOOK = 4
NFTA_CHAIN_NAME = 3
NFTA_CHAIN_POLICY = 5
NFTA_CHAIN_TABLE = 1
NFTA_CHAIN_TYPE = 7
NFTA_DATA_VALUE = 1
NFTA_DATA_VERDICT = 2
NFTA_HOOK_HOOKNUM = 1
NFTA_HOOK_PRIORITY = 2
NFTA_LIST_ELEM = 1
NFTA_RULE_CHAIN = 2
NFTA_RULE_EXPRESSIONS = 4
NFTA_RULE_HANDLE = 3
NFTA_RULE_TABLE = 1
NFTA_RULE_USERDATA = 7
NFTA_SET_DATA_LEN = 7
NFTA_SET_DATA_TYPE = 6
NFTA_SET_ELEM_DATA = 2
NFTA_SET_ELEM_FLAGS = 3
NFTA_SET_ELEM_KEY = 1
NFTA_SET_ELEM_KEY_END = 10
NFTA_SET_ELEM_LIST_ELEMENTS = 3
NFTA_SET_ELEM_LIST_SET = 2
NFTA_SET_ELEM_LIST_TABLE = 1
NFTA_SET_ELEM_TIMEOUT = 4
NFTA_SET_FLAGS = 3
NFTA_SET_ID = 10
NFTA_SET_KEY_LEN = 5
NFTA_SET_KEY_TYPE = 4
NFTA_SET_NAME = 2
NFTA_SET_TABLE = 1
NFTA_SET_TIMEOUT = 11
NFTA_TABLE_NAME = 1
NFTA_VERDICT_CHAIN = 2
NFTA_VERDICT_CODE = 1
NFT_GOTO = -4
NFT_JUMP = -3
NFT_MSG_DELRULE = 8
NFT_MSG_DELSETELEM = 14
NFT_MSG_DELTABLE = 2
NFT_MSG_GETRULE = 7
NFT_MSG_GETSETELEM = 13
NFT_MSG_NEWCHAIN = 3
NFT_MSG_NEWRULE = 6
NFT_MSG_NEWSET = 9
NFT_MSG_NEWSETELEM = 12
NFT_MSG_NEWTABLE = 0
NFT_RETURN = -5
NFT_SET_ELEM_INTERVAL_END = 0x1
NF_ACCEPT = 1
NF_DROP = 0

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NFGENMSG = struct.Struct(">BBH")  # family, version, resource
_ERROR = struct.Struct("=i")
_LENGTH = struct.Struct("=H")
_U32 = struct.Struct(">I")
_S32 = struct.Struct(">i")
_U64 = struct.Struct(">Q")
_IFNAMSIZ = 16
_UDATA_COMMENT = 0  # libnftnl's udata.h: NFTNL_UDATA_RULE_COMMENT
SO_SNDBUFFORCE = 32  # asm-generic/socket.h; also set by privileged callers beyond the limit
_SEND_BUFFER_BYTES = 16 << 20
_USUAL_SEND_BYTES = 100_000
_ANSWER_BYTES = 65536
_BEGIN_SEQUENCE = 0
# An attribute's length has 16 bits, and a list of elements is one attribute.
_ELEMENTS_BYTES = 60000


class Message:
    """One message of a transaction; `what` names it in an error."""

    __slots__ = ("body", "family", "flags", "type", "what")

    def __init__(self, type: int, flags: int, family: int, body: bytes, what: str) -> None:
        self.type = type
        self.flags = flags
        self.family = family
        self.body = body
        self.what = what


class Element:
    """An element of a set or map.

    `data` is what a map maps the key to (see `verdict` for verdict maps), `end` the last key of a
    range in a set of concatenated intervals, `timeout_ms` its life, 0 for the set's default. In other
    sets of intervals a range is two elements: its first key, and the key behind it with `ends_range`.
    """

    __slots__ = ("data", "end", "ends_range", "key", "timeout_ms", "verdict")

    def __init__(
        self,
        key: bytes,
        data: bytes = b"",
        *,
        end: bytes = b"",
        timeout_ms: int = 0,
        verdict: bytes = b"",
        ends_range: bool = False,
    ) -> None:
        self.key = key
        self.data = data
        self.end = end
        self.timeout_ms = timeout_ms
        self.verdict = verdict
        self.ends_range = ends_range


def transact(changes: Sequence[Message]) -> None:
    """Carry out the messages as one transaction in the calling thread's network namespace.

    Raises:
        OSError: the kernel's errno for the first message that it refused; nothing has changed.
            EEXIST: an element is there with other data; ENOENT: no such table, set or element.
    """
    if changes:
        send(pack(changes), [change.what for change in changes])


def pack(changes: Sequence[Message]) -> bytes:
    """The transaction as bytes for `send`, which may be kept and sent again anywhere."""
    last = len(changes)
    parts = [_batch(NFNL_MSG_BATCH_BEGIN, _BEGIN_SEQUENCE)]
    for number, change in enumerate(changes, 1):
        # The last is acknowledged, and that only after the whole transaction was committed.
        flags = change.flags | NLM_F_REQUEST | (NLM_F_ACK if number == last else 0)
        kind = NFNL_SUBSYS_NFTABLES << 8 | change.type
        body = _NFGENMSG.pack(change.family, 0, 0) + change.body
        parts.append(_message(kind, flags, number, body))
    parts.append(_batch(NFNL_MSG_BATCH_END, last + 1))
    return b"".join(parts)


def send(packed: bytes, names: Sequence[str] = ()) -> None:
    """Carry out a packed transaction; `names` say in an error which message was refused.

    Raises:
        OSError: as `transact`.
    """
    connection = Connection()
    try:
        connection.send(packed, names)
    finally:
        connection.close()


class Connection:
    """An open socket to the packet filter of the network namespace it is first used in.

    Worth keeping by who deletes: the kernel makes whoever *closes* such a socket wait for the grace
    period of what was deleted lately (8-14 ms, with everybody else's changes waiting, too), while the
    deletion itself takes 50 µs. Not thread-safe.
    """

    def __init__(self) -> None:
        self._socket: _socket.socket | None = None

    def transact(self, changes: Sequence[Message]) -> list[bytes]:
        """As the function of this name; returns what the kernel repeats (`new_rule`'s `repeated`)."""
        if not changes:
            return []
        return self.send(pack(changes), [change.what for change in changes])

    def send(self, packed: bytes, names: Sequence[str] = ()) -> list[bytes]:
        """As the function of this name."""
        if self._socket is None:
            self._socket = _open()
        try:
            return _exchange(self._socket, packed, names)
        except OSError:
            self.close()  # answers of this transaction may still be in the queue
            raise

    def rule(self, family: int, table: str, chain: str, handle: int) -> bytes:
        """The rule with this handle: its attributes, as the kernel keeps them.

        Raises:
            OSError: ENOENT if there is none.
        """
        if self._socket is None:
            self._socket = _open()
        body = _NFGENMSG.pack(family, 0, 0) + _of_rule(table, chain)
        body += attribute(NFTA_RULE_HANDLE, _U64.pack(handle))
        kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE
        self._socket.send(_message(kind, NLM_F_REQUEST, 1, body))
        for type, _, _, answer in messages(self._socket.recv(_ANSWER_BYTES)):
            if type == NLMSG_ERROR:
                (code,) = _ERROR.unpack_from(answer)
                raise OSError(-code, f"rule {handle} of {table} {chain}: {os.strerror(-code)}")
            return answer[_NFGENMSG.size :]
        raise OSError(errno.EPROTO, f"rule {handle} of {table} {chain}: no answer")

    def close(self) -> None:
        """Close it; the next use opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _exchange(sock: _socket.socket, packed: bytes, names: Sequence[str]) -> list[bytes]:
    if len(packed) > _USUAL_SEND_BYTES:
        sock.setsockopt(_socket.SOL_SOCKET, SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
    sock.send(packed)
    repeated: list[bytes] = []
    while True:
        for type, _, sequence, body in messages(sock.recv(_ANSWER_BYTES)):
            if type != NLMSG_ERROR:
                repeated.append(body[_NFGENMSG.size :])
                continue
            (code,) = _ERROR.unpack_from(body)
            if code:
                what = names[sequence - 1] if 0 < sequence <= len(names) else "nftables"
                raise OSError(-code, f"{what}: {os.strerror(-code)}")
            if sequence != _BEGIN_SEQUENCE:
                return repeated


def elements(family: int, table: str, name: str) -> list[tuple[bytes, bytes]]:
    """(key, data) of all elements of a set or map.

    Raises:
        OSError: ENOENT if there is no such set.
    """
    body = _NFGENMSG.pack(family, 0, 0) + _of_set(table, name)
    found: list[tuple[bytes, bytes]] = []
    sock = _open()
    try:
        kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM
        sock.send(_message(kind, NLM_F_REQUEST | NLM_F_DUMP, 1, body))
        while True:
            for type, _, _, answer in messages(sock.recv(_ANSWER_BYTES)):
                if type == NLMSG_DONE:
                    return found
                if type == NLMSG_ERROR:
                    (code,) = _ERROR.unpack_from(answer)
                    raise OSError(-code, f"list {table} {name}: {os.strerror(-code)}")
                found += _listed(answer)
    finally:
        sock.close()


def has_set(family: int, table: str, name: str) -> bool:
    """Whether the table has the set or map; a cheap way to ask whether a rule set is there."""
    try:
        elements(family, table, name)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def new_table(family: int, table: str) -> Message:
    """Make the table; no error if it exists."""
    body = attribute_text(NFTA_TABLE_NAME, table)
    return Message(NFT_MSG_NEWTABLE, NLM_F_CREATE, family, body, f"add table {table}")


def delete_table(family: int, table: str) -> Message:
    """Delete the table and all in it; ENOENT if there is none (add it first to be sure)."""
    body = attribute_text(NFTA_TABLE_NAME, table)
    return Message(NFT_MSG_DELTABLE, 0, family, body, f"delete table {table}")


def new_chain(
    family: int,
    table: str,
    name: str,
    *,
    kind: str = "",
    hook: int = 0,
    priority: int = 0,
    policy: int = NF_ACCEPT,
) -> Message:
    """Make a chain; with `kind` (`filter`, `nat`, `route`) one at a hook."""
    body = attribute_text(NFTA_CHAIN_TABLE, table) + attribute_text(NFTA_CHAIN_NAME, name)
    if kind:
        body += nested(
            NFTA_CHAIN_HOOK,
            attribute(NFTA_HOOK_HOOKNUM, _U32.pack(hook)),
            attribute(NFTA_HOOK_PRIORITY, _S32.pack(priority)),
        )
        body += attribute(NFTA_CHAIN_POLICY, _U32.pack(policy))
        body += attribute_text(NFTA_CHAIN_TYPE, kind)
    return Message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, family, body, f"add chain {table} {name}")


def new_set(
    family: int,
    table: str,
    name: str,
    *,
    key_bytes: int,
    data_bytes: int | None = None,
    flags: int = 0,
    number: int = 1,
) -> Message:
    """Make a set, or a map with `data_bytes`; `number` tells the sets of one transaction apart."""
    body = (
        attribute_text(NFTA_SET_TABLE, table)
        + attribute_text(NFTA_SET_NAME, name)
        + attribute(NFTA_SET_KEY_LEN, _U32.pack(key_bytes))
        + attribute(NFTA_SET_ID, _U32.pack(number))
    )
    if data_bytes is not None:
        flags |= 0x8  # NFT_SET_MAP
        body += attribute(NFTA_SET_DATA_TYPE, _U32.pack(0))
        body += attribute(NFTA_SET_DATA_LEN, _U32.pack(data_bytes))
    body += attribute(NFTA_SET_FLAGS, _U32.pack(flags))
    return Message(NFT_MSG_NEWSET, NLM_F_CREATE, family, body, f"add set {table} {name}")


def new_rule(
    family: int,
    table: str,
    chain: str,
    expressions: Iterable[bytes],
    *,
    comment: str = "",
    first: bool = False,
    repeated: bool = False,
) -> Message:
    """Add a rule behind all others, or before them; its expressions are of `nftexpr`, in order.

    `repeated`: the kernel tells what it has made, with its handle (`Connection.transact`).
    """
    body = _of_rule(table, chain) + nested(NFTA_RULE_EXPRESSIONS, *expressions)
    if comment:
        body += attribute(NFTA_RULE_USERDATA, commented(comment))
    flags = NLM_F_CREATE | (0 if first else NLM_F_APPEND) | (NLM_F_ECHO if repeated else 0)
    return Message(NFT_MSG_NEWRULE, flags, family, body, f"add rule {table} {chain}")


def delete_rule(family: int, table: str, chain: str, handle: int) -> Message:
    """Delete the rule with this handle; ENOENT if there is none."""
    body = _of_rule(table, chain) + attribute(NFTA_RULE_HANDLE, _U64.pack(handle))
    return Message(NFT_MSG_DELRULE, 0, family, body, f"delete rule {handle} of {table} {chain}")


def commented(comment: str) -> bytes:
    """A rule's comment as nft and iptables-nft keep it (libnftnl's user data)."""
    text = comment.encode() + b"\0"
    return bytes([_UDATA_COMMENT, len(text)]) + text


def handle_of(rule: bytes) -> int:
    """The handle in a rule's attributes."""
    return int.from_bytes(attributes(rule).get(NFTA_RULE_HANDLE, b""), "big")


def comment_of(rule: bytes) -> str:
    """The comment in a rule's attributes, as far as it is the first of its user data."""
    data = attributes(rule).get(NFTA_RULE_USERDATA, b"")
    if len(data) < 2 or data[0] != _UDATA_COMMENT:
        return ""
    return data[2 : 2 + data[1]].rstrip(b"\0").decode(errors="replace")


def new_element(family: int, table: str, name: str, items: Iterable[Element]) -> Message:
    """Put elements into a set or map; one that is there with the same data is no error."""
    return _change(NFT_MSG_NEWSETELEM, NLM_F_CREATE, "add element to", family, table, name, items)


def delete_element(family: int, table: str, name: str, items: Iterable[Element]) -> Message:
    """Take elements out, found by their keys; ENOENT if one is not there."""
    return _change(NFT_MSG_DELSETELEM, 0, "delete element of", family, table, name, items)


def in_portions(items: Sequence[Element]) -> list[Sequence[Element]]:
    """The elements in as many messages as they need: an attribute holds at most 64 KiB."""
    if not items:
        return []
    largest = max(len(_element(item)) for item in items)
    count = max(_ELEMENTS_BYTES // largest, 1)
    return [items[start : start + count] for start in range(0, len(items), count)]


def verdict(code: int, chain: str = "") -> bytes:
    """The data of a verdict map's element: NF_ACCEPT, NF_DROP, NFT_RETURN, or to `chain`."""
    parts = [attribute(NFTA_VERDICT_CODE, _S32.pack(code))]
    if chain:
        parts.append(attribute_text(NFTA_VERDICT_CHAIN, chain))
    return nested(NFTA_DATA_VERDICT, *parts)


def interface_key(name: str) -> bytes:
    """An interface's name as a key."""
    return name.encode().ljust(_IFNAMSIZ, b"\0")


def field(value: bytes) -> bytes:
    """A field of a concatenation, padded to four bytes."""
    return value + b"\0" * (-len(value) % 4)


def _change(
    type: int,
    flags: int,
    what: str,
    family: int,
    table: str,
    name: str,
    items: Iterable[Element],
) -> Message:
    body = _of_set(table, name) + nested(
        NFTA_SET_ELEM_LIST_ELEMENTS,
        *(_element(item) for item in items),
    )
    return Message(type, flags, family, body, f"{what} {table} {name}")


def _of_rule(table: str, chain: str) -> bytes:
    return attribute_text(NFTA_RULE_TABLE, table) + attribute_text(NFTA_RULE_CHAIN, chain)


def _of_set(table: str, name: str) -> bytes:
    return attribute_text(NFTA_SET_ELEM_LIST_TABLE, table) + attribute_text(
        NFTA_SET_ELEM_LIST_SET, name
    )


def _element(item: Element) -> bytes:
    parts = [nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, item.key))]
    if item.end:
        parts.append(nested(NFTA_SET_ELEM_KEY_END, attribute(NFTA_DATA_VALUE, item.end)))
    if item.ends_range:
        parts.append(attribute(NFTA_SET_ELEM_FLAGS, _U32.pack(NFT_SET_ELEM_INTERVAL_END)))
    if item.data:
        parts.append(nested(NFTA_SET_ELEM_DATA, attribute(NFTA_DATA_VALUE, item.data)))
    if item.verdict:
        parts.append(nested(NFTA_SET_ELEM_DATA, item.verdict))
    if item.timeout_ms:
        parts.append(attribute(NFTA_SET_ELEM_TIMEOUT, _U64.pack(item.timeout_ms)))
    return nested(NFTA_LIST_ELEM, *parts)


def _listed(answer: bytes) -> list[tuple[bytes, bytes]]:
    """The elements in one message of a dump."""
    found = []
    data = attributes(answer, _NFGENMSG.size).get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")
    offset = 0
    while offset + 4 <= len(data):
        length = _LENGTH.unpack_from(data, offset)[0]
        if length < 4:
            break
        parts = attributes(data[offset + 4 : offset + length])
        key = attributes(parts.get(NFTA_SET_ELEM_KEY, b"")).get(NFTA_DATA_VALUE, b"")
        value = attributes(parts.get(NFTA_SET_ELEM_DATA, b"")).get(NFTA_DATA_VALUE, b"")
        found.append((key, value))
        offset += (length + 3) & ~3
    return found


def _open() -> _socket.socket:
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
    sock = _socket.socket(_socket.AF_NETLINK, kind, NETLINK_NETFILTER)
    sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    return sock


def _batch(type: int, sequence: int) -> bytes:
    # The resource of the two marks is the subsystem that the transaction is for.
    return _message(type, NLM_F_REQUEST, sequence, _NFGENMSG.pack(0, 0, NFNL_SUBSYS_NFTABLES))


def _message(type: int, flags: int, sequence: int, body: bytes) -> bytes:
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, type, flags, sequence, 0) + body + b"\0" * (-length % 4)
