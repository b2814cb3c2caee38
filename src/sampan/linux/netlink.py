"""A container's network interfaces, through rtnetlink(7).

The hot path is two calls. `create_veth`, on the host, makes a pair of which one end is a port of
the bridge and the other is born inside the container's network namespace with its final name, MAC
and MTU: one message. `configure_inside`, inside that namespace, brings up the loopback and gives
the interfaces addresses and routes: one batch. Nothing needs deleting afterwards: the pair dies
with the namespace.

Addresses are text (`172.30.0.2/16`, `fd00::2/64`), MACs are `02:42:ac:1e:00:02`.
Sources: rtnetlink(7), veth(4), linux/{if_link,if_addr,rtnetlink,veth}.h.
"""

from __future__ import annotations

import _socket
import os
import struct

from sampan.linux.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Request,
    attribute,
    attribute_text,
    attribute_u32,
    nested,
    transact,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h, net/if.h
IFA_ADDRESS = 1
IFA_BROADCAST = 4
IFA_FLAGS = 8
IFA_F_NODAD = 0x02
IFA_LOCAL = 2
IFF_UP = 0x1
IFLA_ADDRESS = 1
IFLA_AF_SPEC = 26
IFLA_BRPORT_ISOLATED = 33
IFLA_BRPORT_MODE = 4
IFLA_IFNAME = 3
IFLA_INET6_ADDR_GEN_MODE = 8
IFLA_INFO_DATA = 2
IFLA_INFO_KIND = 1
IFLA_INFO_SLAVE_DATA = 5
IFLA_INFO_SLAVE_KIND = 4
IFLA_IPVLAN_FLAGS = 2
IFLA_IPVLAN_MODE = 1
IFLA_LINK = 5
IFLA_LINKINFO = 18
IFLA_MACVLAN_MODE = 1
IFLA_MASTER = 10
IFLA_MTU = 4
IFLA_NET_NS_FD = 28
IFLA_NET_NS_PID = 19
IN6_ADDR_GEN_MODE_NONE = 1
RTA_DST = 1
RTA_GATEWAY = 5
RTA_OIF = 4
RTM_DELLINK = 17
RTM_NEWADDR = 20
RTM_NEWLINK = 16
RTM_NEWROUTE = 24
RTN_UNICAST = 1
RTPROT_BOOT = 3
RT_SCOPE_LINK = 253
RT_SCOPE_UNIVERSE = 0
RT_TABLE_MAIN = 254
VETH_INFO_PEER = 1

IFNAMSIZ = 16
IPV6_MIN_MTU = 1280  # RFC 8200 5
_LOOPBACK_INDEX = 1  # the first interface of every namespace, by the kernel's own order
IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFADDR = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags


class VethEndpoint:
    """One interface of a container and its port on a bridge, as agreed before either exists.

    `host_name` is the port's name on the host, `name` the interface's inside; `addresses` carry
    their prefix lengths; a gateway of `""` means no default route of that family.
    An `isolated` port exchanges nothing with other isolated ports of its bridge; a `hairpin` port
    gets back what it sent, where the bridge finds its addressee behind it.

    Of another `kind` than veth (`macvlan`, `ipvlan`) there is no port: the interface hangs on the
    one with the index `bridge_index`, in a `mode` of linux/if_link.h, with `kind_flags`. With
    `device_routes` there are default routes of its families without a gateway.

    `sysctls` are settings of the interface: paths below /proc/sys/net, with `IFNAME` for its name, and values.
    """

    __slots__ = (
        "addresses",
        "bridge",
        "bridge_index",
        "device_routes",
        "gateway",
        "gateway6",
        "hairpin",
        "host_name",
        "isolated",
        "kind",
        "kind_flags",
        "mac",
        "mode",
        "mtu",
        "name",
        "sysctls",
    )

    def __init__(
        self,
        *,
        host_name: str,
        bridge: str,
        bridge_index: int,
        mac: str,
        addresses: Iterable[str],
        name: str = "eth0",
        mtu: int = 1500,
        gateway: str = "",
        gateway6: str = "",
        isolated: bool = False,
        hairpin: bool = False,
        kind: str = "veth",
        mode: int = 0,
        kind_flags: int = 0,
        device_routes: bool = False,
        sysctls: Mapping[str, str] | None = None,
    ) -> None:
        self.host_name = host_name
        self.bridge = bridge
        self.bridge_index = bridge_index
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.addresses = tuple(addresses)
        self.gateway = gateway
        self.gateway6 = gateway6
        self.isolated = isolated
        self.hairpin = hairpin
        self.kind = kind
        self.mode = mode
        self.kind_flags = kind_flags
        self.device_routes = device_routes
        self.sysctls = dict(sysctls or {})

    def to_dict(self) -> dict[str, Any]:
        """The endpoint as JSON values; `from_dict` reads them."""
        values: dict[str, Any] = {key: getattr(self, key) for key in self.__slots__}
        values["addresses"] = list(self.addresses)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VethEndpoint:
        """The endpoint that `to_dict` wrote down."""
        return cls(**values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VethEndpoint) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.host_name, self.mac))

    def __repr__(self) -> str:
        return f"VethEndpoint({self.host_name} -> {self.name} {' '.join(self.addresses)})"


def create_veth(
    endpoint: VethEndpoint, *, netns_fd: int | None = None, netns_pid: int | None = None
) -> None:
    """Make the pair: the host's end up and a port of the bridge, the other inside the namespace.

    Of another kind than veth: the one interface, inside the namespace.

    Called in the host's network namespace; the container's is given by an open file of it or by
    a process in it. Either both ends exist afterwards or none.

    Raises:
        OSError: EEXIST if either name is taken, ENODEV or EINVAL if the bridge is gone.
    """
    if netns_fd is not None:
        namespace = attribute_u32(IFLA_NET_NS_FD, netns_fd)
    elif netns_pid is not None:
        namespace = attribute_u32(IFLA_NET_NS_PID, netns_pid)
    else:
        raise ValueError("create_veth needs netns_fd or netns_pid")
    if endpoint.kind != "veth":
        transact([_on_parent(endpoint, namespace)])
        return
    peer = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + name_attribute(endpoint.name)
        + attribute(IFLA_ADDRESS, mac_bytes(endpoint.mac))
        + attribute_u32(IFLA_MTU, endpoint.mtu)
        + namespace
    )
    body = (
        IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP)
        + name_attribute(endpoint.host_name)
        + attribute_u32(IFLA_MTU, endpoint.mtu)
        + attribute_u32(IFLA_MASTER, endpoint.bridge_index or index_of(endpoint.bridge))
        + link_info("veth", nested(VETH_INFO_PEER, peer))
    )
    what = f"create veth {endpoint.host_name} on {endpoint.bridge}"
    transact([Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what)])
    if endpoint.isolated or endpoint.hairpin:
        try:
            transact(_port_flags(endpoint))
        except OSError:
            delete_link(endpoint.host_name)
            raise


def mode_on_parent(kind: str, mode: int, flags: int) -> bytes:
    """The attributes that say how a macvlan or an ipvlan uses its parent."""
    if kind == "macvlan":
        return attribute_u32(IFLA_MACVLAN_MODE, mode)
    return attribute(IFLA_IPVLAN_MODE, mode.to_bytes(2, "little")) + attribute(
        IFLA_IPVLAN_FLAGS, flags.to_bytes(2, "little")
    )


def _on_parent(endpoint: VethEndpoint, namespace: bytes) -> Request:
    """An interface in the namespace that hangs on one of the host's; an ipvlan has its parent's MAC."""
    has_mac = endpoint.kind == "macvlan"
    mac = attribute(IFLA_ADDRESS, mac_bytes(endpoint.mac)) if has_mac else b""
    mode = mode_on_parent(endpoint.kind, endpoint.mode, endpoint.kind_flags)
    body = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + name_attribute(endpoint.name)
        + mac
        + attribute_u32(IFLA_MTU, endpoint.mtu)
        + attribute_u32(IFLA_LINK, endpoint.bridge_index or index_of(endpoint.bridge))
        + namespace
        + link_info(endpoint.kind, mode)
    )
    what = f"create {endpoint.kind} on {endpoint.bridge}"
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what)


def configure_inside(endpoints: Sequence[VethEndpoint]) -> None:
    """Bring up the loopback and the endpoints' interfaces with their addresses and routes.

    Works on the calling thread's network namespace, in one batch. An interface without an IPv6
    address gets no link-local one either: no duplicate address detection, no router solicitation,
    and nothing reachable that inspect does not show.

    Raises:
        OSError: the first step that failed.
    """
    requests = [bring_up(_LOOPBACK_INDEX, "lo")]
    for endpoint in endpoints:
        if endpoint.sysctls:
            write_sysctls(endpoint)
        requests += interface_requests(endpoint, index_of(endpoint.name))
    transact(requests)


def write_sysctls(endpoint: VethEndpoint) -> None:
    """Make the settings of an endpoint's interface, which is in the calling thread's network namespace. Some
    count only for addresses that come later, or before it is up.

    Raises:
        OSError: the kernel has no such setting, or refuses the value; names it.
    """
    for path, value in endpoint.sysctls.items():
        path = path.replace("IFNAME", endpoint.name)
        try:
            fd = os.open(f"/proc/sys/net/{path}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            number = error.errno or 0
            raise OSError(number, f"sysctl net/{path} = {value!r}: {os.strerror(number)}") from None


def interface_requests(endpoint: VethEndpoint, index: int) -> list[Request]:
    has6 = any(":" in address for address in endpoint.addresses)
    requests = [new_address(index, address, endpoint.name) for address in endpoint.addresses]
    if not has6 and endpoint.mtu >= IPV6_MIN_MTU:  # with a smaller one there is no IPv6 on it
        requests.append(_without_link_local(index, endpoint.name))
    requests.append(bring_up(index, endpoint.name))
    for gateway in (endpoint.gateway, endpoint.gateway6):
        if gateway:
            requests.append(default_route(index, gateway, endpoint.name))
    if endpoint.device_routes:
        requests.append(default_route(index, "", endpoint.name))
    return requests


def delete_link(name: str) -> bool:
    """Delete the interface (of a pair both ends); False if there is none of that name."""
    body = IFINFO.pack(0, 0, 0, 0, 0) + name_attribute(name)
    try:
        transact([Request(RTM_DELLINK, 0, body, f"delete {name}")])
    except OSError as error:
        if error.errno == 19:  # ENODEV
            return False
        raise
    return True


def index_of(name: str) -> int:
    """The interface's index; OSError ENODEV if there is none of that name."""
    try:
        return _socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(error.errno or 19, f"interface {name}: {os.strerror(19)}") from None


def bring_up(index: int, name: str) -> Request:
    return Request(RTM_NEWLINK, 0, IFINFO.pack(0, 0, index, IFF_UP, IFF_UP), f"bring up {name}")


def isolate(name: str) -> Request:
    """Set a flag of the bridge's port, which the message that makes the port cannot carry."""
    return _port_flag(name, IFLA_BRPORT_ISOLATED, f"isolate {name}")


def _port_flags(endpoint: VethEndpoint) -> list[Request]:
    name = endpoint.host_name
    requests = [isolate(name)] if endpoint.isolated else []
    if endpoint.hairpin:
        requests.append(let_turn_back(name))
    return requests


def let_turn_back(name: str) -> Request:
    """Set the bridge's port to hairpin mode: frames may leave where they came in."""
    return _port_flag(name, IFLA_BRPORT_MODE, f"set hairpin mode of {name}")


def _port_flag(name: str, flag: int, what: str) -> Request:
    port = nested(IFLA_INFO_SLAVE_DATA, attribute(flag, b"\1"))
    body = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + name_attribute(name)
        + nested(IFLA_LINKINFO, attribute(IFLA_INFO_SLAVE_KIND, b"bridge"), port)
    )
    return Request(RTM_NEWLINK, 0, body, what)


def _without_link_local(index: int, name: str) -> Request:
    """To come before `_up`: within one message the kernel would bring it up first."""
    mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    body = IFINFO.pack(0, 0, index, 0, 0) + nested(IFLA_AF_SPEC, nested(_socket.AF_INET6, mode))
    return Request(RTM_NEWLINK, 0, body, f"set address generation of {name}")


def new_address(index: int, address: str, name: str) -> Request:
    family, packed, prefix = _parse(address)
    # An address we hand out is ours alone: to use it at once, skip duplicate detection.
    flags = IFA_F_NODAD if family == _socket.AF_INET6 else 0
    body = (
        IFADDR.pack(family, prefix, flags, RT_SCOPE_UNIVERSE, index)
        + attribute(IFA_LOCAL, packed)
        + attribute(IFA_ADDRESS, packed)
    )
    if family == _socket.AF_INET and prefix < 31:
        body += attribute(IFA_BROADCAST, _broadcast(packed, prefix))
    what = f"add address {address} to {name}"
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, what)


def default_route(index: int, gateway: str, name: str, *, ipv6: bool = False) -> Request:
    """The default route through a gateway; without one (of IPv4 unless `ipv6`) out of the interface."""
    if gateway:
        family, packed, _ = _parse(gateway)
        through, scope = attribute(RTA_GATEWAY, packed), RT_SCOPE_UNIVERSE
    else:
        family = _socket.AF_INET6 if ipv6 else _socket.AF_INET
        through, scope = b"", RT_SCOPE_UNIVERSE if ipv6 else RT_SCOPE_LINK
    body = (
        RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
        + through
        + attribute_u32(RTA_OIF, index)
    )
    what = f"add default route through {gateway or 'nothing'} on {name}"
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, what)


def link_info(kind: str, data: bytes) -> bytes:
    return nested(
        IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode()), nested(IFLA_INFO_DATA, data)
    )


def name_attribute(name: str) -> bytes:
    if not 0 < len(name.encode()) < IFNAMSIZ:
        raise ValueError(f"interface name {name!r} must have 1 to {IFNAMSIZ - 1} bytes")
    return attribute_text(IFLA_IFNAME, name)


def mac_bytes(mac: str) -> bytes:
    packed = bytes.fromhex(mac.replace(":", ""))
    if len(packed) != 6:
        raise ValueError(f"bad MAC address: {mac}")
    return packed


def _parse(address: str) -> tuple[int, bytes, int]:
    """(family, packed address, prefix length) of text with or without a prefix length."""
    text, _, prefix = address.partition("/")
    family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
    try:
        packed = _socket.inet_pton(family, text)
    except OSError:
        raise ValueError(f"bad IP address: {address}") from None
    return family, packed, int(prefix) if prefix else len(packed) * 8


def _broadcast(packed: bytes, prefix: int) -> bytes:
    host_bits = 0xFFFFFFFF >> prefix
    return (int.from_bytes(packed, "big") | host_bits).to_bytes(4, "big")
