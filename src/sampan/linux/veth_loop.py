"""A veth pair whose two ends are on the same machine: what goes out of one comes in at the other.

Both ends have one MAC and do not resolve neighbours, so a packet sent to any neighbour of the one is a
packet for this machine at the other. Sources: veth(4), linux/{if_link,rtnetlink}.h.
"""

from __future__ import annotations

import _socket

from sampan.linux.netlink import (
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_MTU,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_OIF,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
    RTPROT_BOOT,
    VETH_INFO_PEER,
    bring_up,
    index_of,
    link_info,
    mac_bytes,
    name_attribute,
    new_address,
)
from sampan.linux.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    attribute,
    attribute_u32,
    nested,
    transact,
)

IFF_NOARP = 0x80
_RTA_PRIORITY = 6
_RTN_LOCAL = 2
_RT_SCOPE_HOST = 254
_RT_TABLE_LOCAL = 255
_METRIC = 4096


def create_loop(way_out: str, way_in: str, *, mac: str, mtu: int, address: str) -> None:
    """Make the pair, both ends up; `way_in` has the address, without which it takes no packets.

    Raises:
        OSError: EEXIST if a name is taken, EOPNOTSUPP if the kernel has no veth.
    """
    common = attribute(IFLA_ADDRESS, mac_bytes(mac)) + attribute_u32(IFLA_MTU, mtu)
    head = IFINFO.pack(0, 0, 0, IFF_NOARP, IFF_NOARP)
    peer = head + name_attribute(way_in) + common
    body = head + name_attribute(way_out) + common
    body += link_info("veth", nested(VETH_INFO_PEER, peer))
    transact([Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create veth {way_out}")])
    first, second = index_of(way_out), index_of(way_in)
    transact([_without_arp(first, way_out), _without_arp(second, way_in)])
    transact(
        [
            new_address(second, address, way_in),
            bring_up(first, way_out),
            bring_up(second, way_in),
        ]
    )


def route_to(destination: str, name: str) -> None:
    """Reach one IPv6 address directly by this interface; no error if the route is there."""
    packed = _socket.inet_pton(_socket.AF_INET6, destination)
    body = (
        RTMSG.pack(
            _socket.AF_INET6,
            128,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            RT_SCOPE_UNIVERSE,
            RTN_UNICAST,
            0,
        )
        + attribute(RTA_DST, packed)
        + attribute_u32(RTA_OIF, index_of(name))
    )
    what = f"add a route to {destination} by {name}"
    transact([Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, what)])


def accept_loopback(name: str) -> None:
    """Let what comes in by the interface be for `::1`, which the kernel takes from `lo` alone.

    Packets that bear this address on the wire are dropped before anybody looks for a route: it is for
    those whose address is translated on their way in. No error if it is so already.
    """
    index = index_of(name)
    head = RTMSG.pack(
        _socket.AF_INET6, 128, 0, 0, _RT_TABLE_LOCAL, RTPROT_BOOT, _RT_SCOPE_HOST, _RTN_LOCAL, 0
    )
    body = (
        head
        + attribute(RTA_DST, _socket.inet_pton(_socket.AF_INET6, "::1"))
        + attribute_u32(RTA_OIF, index)
        # Behind the kernel's own, and of each interface another one, as equal ones are replaced.
        + attribute_u32(_RTA_PRIORITY, _METRIC + index)
    )
    what = f"accept packets for ::1 from {name}"
    transact([Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, what)])


def _without_arp(index: int, name: str) -> Request:
    body = IFINFO.pack(0, 0, index, IFF_NOARP | IFF_UP, IFF_NOARP)
    return Request(RTM_NEWLINK, 0, body, f"switch neighbour discovery of {name} off")
