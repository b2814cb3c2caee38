"""Limits on an interface's rate, through rtnetlink(7): token buckets as tc-tbf(8) makes them.

    limit_sending("veth1", 1_250_000)                  # what leaves by veth1, bytes a second
    limit_receiving("veth1", "ifb1", 625_000)          # what comes in by veth1

What an interface sends waits in a queue of its own until it may go, and is dropped when the queue is
full. What it receives has no queue: it is led through a device made for the purpose (ifb), and waits
there. An interface takes its limits with it when it goes, but not that device.

Sources: linux/{rtnetlink,pkt_sched,pkt_cls,tc_act/tc_mirred}.h, tc-tbf(8), tc-mirred(8).
"""

from __future__ import annotations

import errno
import struct

from sampan.linux.interfaces import create_link
from sampan.linux.netlink import bring_up, delete_link, index_of
from sampan.linux.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    attribute,
    attribute_text,
    attribute_u32,
    nested,
    transact,
)

# linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h, linux/if_ether.h
ETH_P_ALL = 0x0003
RTM_DELQDISC = 37
RTM_NEWQDISC = 36
RTM_NEWTFILTER = 44
TCA_ACT_KIND = 1
TCA_ACT_OPTIONS = 2
TCA_EGRESS_REDIR = 1
TCA_KIND = 1
TCA_MIRRED_PARMS = 2
TCA_OPTIONS = 2
TCA_TBF_BURST = 6
TCA_TBF_PARMS = 1
TCA_U32_ACT = 7
TCA_U32_SEL = 5
TC_ACT_STOLEN = 4
TC_H_INGRESS = 0xFFFFFFF1
TC_H_ROOT = 0xFFFFFFFF
TC_LINKLAYER_ETHERNET = 1
TC_U32_TERMINAL = 1

_TCMSG = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_RATESPEC = struct.Struct("=BBHhHI")  # cell log, link layer, overhead, cell align, mpu, rate
_TBF = struct.Struct("=III")  # limit, buffer, mtu; after two rates
_EVERYTHING = struct.pack("=BBBxHHhhI4I", TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_MIRRED = struct.Struct("=IIiiiiI")  # index, capabilities, action, two counts, what, where
_INGRESS_HANDLE = 0xFFFF0000
_PRIORITY = 1 << 16
_BURST_S = 0.01
_BURST_MINIMUM_BYTES = 32 * 1024
_QUEUE_S = 0.1
_QUEUE_MINIMUM_BYTES = 128 * 1024


def limit_sending(name: str, rate_bytes: int) -> None:
    """Let the interface send so many bytes a second; 0 takes the limit away.

    Raises:
        OSError: ENODEV if there is none of that name, ENOENT if the kernel has no token buckets.
    """
    index = index_of(name)
    if rate_bytes:
        transact([_bucket(index, name, rate_bytes)])
    else:
        _without(index, TC_H_ROOT, f"unlimit {name}")


def limit_receiving(name: str, device: str, rate_bytes: int, *, alias: str = "") -> None:
    """Let the interface receive so many bytes a second, through `device`; 0 takes both away.

    Raises:
        OSError: ENODEV if there is no interface of that name, EOPNOTSUPP or ENOENT if the kernel has
            no such devices or no filters.
    """
    index = index_of(name)
    if not rate_bytes:
        _without(index, TC_H_INGRESS, f"unlimit {name}")
        delete_link(device)
        return
    try:
        through = index_of(device)
    except OSError:
        through = create_link(device, "ifb", alias=alias)
    transact([bring_up(through, device), _bucket(through, device, rate_bytes)])
    ingress = _queue(index, TC_H_INGRESS, _INGRESS_HANDLE, "ingress", b"", f"divert {name}")
    ingress.flags = NLM_F_CREATE | NLM_F_EXCL
    try:
        transact([ingress, _divert(index, through, f"divert {name} to {device}")])
    except OSError as error:
        if error.errno != errno.EEXIST:  # it was diverted already, and the rate is all that changed
            raise


def _bucket(index: int, name: str, rate: int) -> Request:
    burst = max(int(rate * _BURST_S), _BURST_MINIMUM_BYTES)
    limit = min(max(int(rate * _QUEUE_S), _QUEUE_MINIMUM_BYTES) + burst, (1 << 32) - 1)
    spec = _RATESPEC.pack(0, TC_LINKLAYER_ETHERNET, 0, -1, 0, rate)
    parameters = spec + _RATESPEC.pack(0, 0, 0, 0, 0, 0) + _TBF.pack(limit, 0, 0)
    options = attribute(TCA_TBF_PARMS, parameters) + attribute_u32(TCA_TBF_BURST, burst)
    return _queue(index, TC_H_ROOT, 0, "tbf", options, f"limit {name} to {rate} bytes/s")


def _queue(index: int, parent: int, handle: int, kind: str, options: bytes, what: str) -> Request:
    body = (
        _TCMSG.pack(0, index, handle, parent, 0)
        + attribute_text(TCA_KIND, kind)
        + nested(TCA_OPTIONS, options)
    )
    return Request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def _divert(index: int, device: int, what: str) -> Request:
    """All packets; u32 is the classifier that every kernel with classifiers has."""
    mirred = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, device)
    action = nested(
        1,
        attribute_text(TCA_ACT_KIND, "mirred"),
        nested(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, mirred)),
    )
    info = _PRIORITY | int.from_bytes(ETH_P_ALL.to_bytes(2, "big"), "little")
    body = (
        _TCMSG.pack(0, index, 0x80000800, _INGRESS_HANDLE, info)
        + attribute_text(TCA_KIND, "u32")
        + nested(TCA_OPTIONS, attribute(TCA_U32_SEL, _EVERYTHING), nested(TCA_U32_ACT, action))
    )
    return Request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def _without(index: int, parent: int, what: str) -> None:
    handle = _INGRESS_HANDLE if parent == TC_H_INGRESS else 0
    body = _TCMSG.pack(0, index, handle, parent, 0)
    try:
        transact([Request(RTM_DELQDISC, 0, body, what)])
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):  # there was none
            raise
