"""Being told that somebody changed the packet filter.

nftables announces each transaction to a multicast group, with the process that made it; iptables-nft
makes such transactions too, iptables-legacy does not. Source: linux/netfilter/nf_tables.h,
nfnetlink.h.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from sampan.linux.rtnetlink import attributes

# linux/netlink.h, linux/netfilter/{nfnetlink,nf_tables}.h
NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFNL_SUBSYS_NFTABLES = 10
NFTA_GEN_PROC_PID = 2
NFT_MSG_NEWGEN = 15

_NEW_GENERATION = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NFGENMSG_BYTES = 4


class RulesetWatch:
    """A socket that becomes readable when the rules of the network namespace change."""

    def __init__(self) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_NONBLOCK
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 1 << NFNLGRP_NFTABLES - 1))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For an event loop to wait for."""
        return self._socket.fileno()

    def changed_by_others(self) -> bool:
        """Read all there is; whether a process other than this one made a change.

        True, too, if the kernel had to drop announcements.
        """
        others = False
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return others
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                others = True
                continue
            others = others or any(pid != os.getpid() for pid in _authors(data))

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _authors(data: bytes) -> list[int]:
    """Process IDs of the transactions announced in a datagram."""
    found = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, type, _, _, _ = _HEADER.unpack_from(data, offset)
        if type == _NEW_GENERATION:
            start = offset + _HEADER.size + _NFGENMSG_BYTES
            values = attributes(data[start : offset + length])
            found.append(int.from_bytes(values.get(NFTA_GEN_PROC_PID, b""), "big"))
        offset += max((length + 3) & ~3, _HEADER.size)
    return found
