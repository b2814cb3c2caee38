"""The machine's own interfaces: bridges made and listed, addresses and routes in use.

What the daemon needs beside `netlink`, which holds what every start of a container needs.
Sources: rtnetlink(7), linux/{if_link,rtnetlink}.h.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct

from sampan.linux import syscalls
from sampan.linux.netlink import (
    IFA_ADDRESS,
    IFA_LOCAL,
    IFADDR,
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTM_NEWLINK,
    RTMSG,
    RTN_UNICAST,
    VETH_INFO_PEER,
    bring_up,
    delete_link,
    index_of,
    isolate,
    link_info,
    mac_bytes,
    mode_on_parent,
    name_attribute,
    new_address,
)
from sampan.linux.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Request,
    attribute,
    attribute_u32,
    attributes,
    dump,
    nested,
    transact,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# linux/rtnetlink.h, linux/if_link.h
IFLA_BR_MCAST_SNOOPING = 23
IFLA_IFALIAS = 20
IFLA_VLAN_ID = 1
RT_SCOPE_NOWHERE = 255
RTM_DELADDR = 21
RTM_DELROUTE = 25
RTM_GETADDR = 22
RTM_GETLINK = 18
RTM_GETROUTE = 26
# linux/sockios.h
SIOCGIFMTU = 0x8921
SIOCGIFHWADDR = 0x8927


def set_up(name: str) -> None:
    """Bring the interface up."""
    transact([bring_up(index_of(name), name)])


def add_address(name: str, address: str) -> None:
    """Give the interface an address with its prefix length; EEXIST if it has it."""
    transact([new_address(index_of(name), address, name)])


def delete_address(name: str, address: str) -> None:
    """Take an address away, given with its prefix length; nothing happens if it is not there."""
    added = new_address(index_of(name), address, name)
    try:
        transact([Request(RTM_DELADDR, 0, added.body, f"delete address {address} of {name}")])
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise


def create_bridge(
    name: str,
    *,
    mac: str,
    address: str = "",
    mtu: int,
    alias: str = "",
    addresses: Sequence[str] = (),
) -> int:
    """Make a bridge with a MAC of its own (it would change with its ports) and bring it up.

    It gets `address` and `addresses`, with their prefix lengths. `alias` is a text to know it by
    again, see `Link.alias`.

    Returns its index. If a later step fails the bridge is deleted again.

    Raises:
        OSError: EEXIST if the name is taken.
    """
    body = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + name_attribute(name)
        + attribute(IFLA_ADDRESS, mac_bytes(mac))
        + attribute_u32(IFLA_MTU, mtu)
        + link_info("bridge", attribute(IFLA_BR_MCAST_SNOOPING, b"\0"))
    )
    transact([Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create bridge {name}")])
    index = index_of(name)
    try:
        wanted = [text for text in (address, *addresses) if text]
        transact(
            [
                _alias(index, alias),
                *(new_address(index, text, name) for text in wanted),
                bring_up(index, name),
            ]
        )
    except OSError:
        delete_link(name)
        raise
    return index


def create_cable(one: str, other: str, bridges: tuple[int, int], *, mtu: int) -> None:
    """A veth pair between two bridges, given by their indexes, both ends up.

    Raises:
        OSError: EEXIST if a name is taken; nothing is left then.
    """
    peer = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + name_attribute(other)
        + attribute_u32(IFLA_MTU, mtu)
        + attribute_u32(IFLA_MASTER, bridges[1])
    )
    body = (
        IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP)
        + name_attribute(one)
        + attribute_u32(IFLA_MTU, mtu)
        + attribute_u32(IFLA_MASTER, bridges[0])
        + link_info("veth", nested(VETH_INFO_PEER, peer))
    )
    transact([Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create cable {one}")])
    try:
        join_bridge(other, bridges[1])
    except OSError:
        delete_link(one)
        raise


def create_link(name: str, kind: str, *, alias: str = "") -> int:
    """Make an interface that needs nothing else, such as a `dummy`, and bring it up; its index.

    Raises:
        OSError: EEXIST if the name is taken, EOPNOTSUPP if the kernel has no such kind.
    """
    return _create(name, b"", link_info(kind, b""), alias)


def create_vlan(name: str, parent: int, tag: int, *, alias: str = "") -> int:
    """Make a VLAN of the interface with the index `parent`, and bring it up; its index.

    Raises:
        OSError: as of `create_link`; ERANGE or EINVAL for a tag that cannot be.
    """
    body = link_info("vlan", attribute(IFLA_VLAN_ID, (tag & 0xFFFF).to_bytes(2, "little")))
    return _create(name, attribute_u32(IFLA_LINK, parent), body, alias)


def probe_on_parent(kind: str, parent: int, mode: int, flags: int) -> None:
    """Whether an interface of this kind (macvlan, ipvlan) can hang on that one, in this mode.

    The mode counts: an ipvlan made without one would change that of all others on its parent.

    Raises:
        OSError: EOPNOTSUPP if the kernel has no such kind; EBUSY or EINVAL if the parent cannot.
    """
    name = f"pr{os.urandom(5).hex()}"
    body = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + name_attribute(name)
        + attribute_u32(IFLA_LINK, parent)
        + link_info(kind, mode_on_parent(kind, mode, flags))
    )
    transact([Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create {kind}")])
    delete_link(name)


def set_alias(name: str, alias: str) -> None:
    """Give the interface another text to know it by, see `Link.alias`."""
    transact([_alias(index_of(name), alias)])


def _create(name: str, before: bytes, info: bytes, alias: str) -> int:
    body = IFINFO.pack(0, 0, 0, 0, 0) + name_attribute(name) + before + info
    transact([Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create {name}")])
    index = index_of(name)
    try:
        transact([_alias(index, alias), bring_up(index, name)])
    except OSError:
        delete_link(name)
        raise
    return index


def join_bridge(name: str, bridge: int, *, isolated: bool = False) -> None:
    """Make an interface a port of the bridge with that index, and bring it up."""
    index = index_of(name)
    body = IFINFO.pack(0, 0, index, IFF_UP, IFF_UP) + attribute_u32(IFLA_MASTER, bridge)
    requests = [Request(RTM_NEWLINK, 0, body, f"make {name} a port")]
    if isolated:
        requests.append(isolate(name))
    transact(requests)


def move_link(name: str, *, netns_pid: int, new_name: str = "") -> None:
    """Move an interface into the network namespace of a process, and bring it up there.

    It is renamed if a new name is given, and keeps its addresses of global scope, which the
    kernel would drop with the move. For a process with one thread: the thread visits the
    other namespace.

    Raises:
        OSError: ENODEV if there is no such interface, EEXIST if the name is taken over there;
            in both cases nothing has moved.
    """
    index = index_of(name)
    final = new_name or name
    kept = [
        text for owner, text, scope in _addresses() if owner == index and scope == RT_SCOPE_UNIVERSE
    ]
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = -1
    try:
        there = os.open(f"/proc/{netns_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(there, syscalls.CLONE_NEWNET)
        if any(link.name == final for link in links()):
            raise OSError(errno.EEXIST, f"interface {final}: {os.strerror(errno.EEXIST)}")
        syscalls.setns(back, syscalls.CLONE_NEWNET)
        transact([_moved(index, final, there)])
        syscalls.setns(there, syscalls.CLONE_NEWNET)
        index = index_of(final)
        transact([*(new_address(index, text, final) for text in kept), bring_up(index, final)])
    finally:
        syscalls.setns(back, syscalls.CLONE_NEWNET)
        os.close(back)
        if there >= 0:
            os.close(there)


def _moved(index: int, name: str, namespace: int) -> Request:
    """With an index given, the name is the one the interface gets."""
    body = (
        IFINFO.pack(0, 0, index, 0, 0)
        + name_attribute(name)
        + attribute_u32(IFLA_NET_NS_FD, namespace)
    )
    return Request(RTM_NEWLINK, 0, body, f"move {name}")


class Link:
    """An interface; `master` is the index of the bridge it is a port of, 0 for none."""

    __slots__ = ("alias", "flags", "index", "kind", "mac", "master", "mtu", "name")

    def __init__(
        self,
        *,
        index: int,
        name: str,
        alias: str,
        kind: str,
        mac: str,
        mtu: int,
        master: int,
        flags: int,
    ) -> None:
        self.alias = alias
        self.index = index
        self.name = name
        self.kind = kind
        self.mac = mac
        self.mtu = mtu
        self.master = master
        self.flags = flags

    @property
    def up(self) -> bool:
        """Whether it is administratively up."""
        return bool(self.flags & IFF_UP)


def hardware_address(name: str) -> str:
    """The MAC of one interface, without asking for all of them; see netdevice(7).

    Raises:
        OSError: ENODEV if there is none of that name.
    """
    request = struct.pack("16s24x", name.encode())
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        answer = fcntl.ioctl(sock.fileno(), SIOCGIFHWADDR, request)
    finally:
        sock.close()
    return answer[18:24].hex(":")


def mtu_of(index: int) -> int:
    """The MTU of one interface, without asking for all of them; see netdevice(7).

    Raises:
        OSError: ENXIO or ENODEV if there is none of that index.
    """
    request = struct.pack("16s24x", _socket.if_indextoname(index).encode())
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        answer = fcntl.ioctl(sock.fileno(), SIOCGIFMTU, request)
    finally:
        sock.close()
    return int.from_bytes(answer[16:20], "little")


def is_there(name: str) -> bool:
    """Whether there is an interface of that name."""
    try:
        return bool(_socket.if_nametoindex(name))
    except OSError:
        return False


def links() -> list[Link]:
    """All interfaces of the namespace."""
    bodies = dump(Request(RTM_GETLINK, 0, IFINFO.pack(0, 0, 0, 0, 0), "list interfaces"))
    return [_link(body) for body in bodies]


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = IFINFO.unpack_from(body)
    found = attributes(body, IFINFO.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_text(found.get(IFLA_IFNAME, b"")),
        alias=_text(found.get(IFLA_IFALIAS, b"")),
        kind=_text(info.get(IFLA_INFO_KIND, b"")),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(IFLA_MTU)),
        master=_number(found.get(IFLA_MASTER)),
        flags=flags,
    )


def addresses() -> list[tuple[int, str]]:
    """(interface index, address with prefix length) of all addresses of both families."""
    return [(index, text) for index, text, _ in _addresses()]


def _addresses() -> list[tuple[int, str, int]]:
    """(interface index, address with prefix length, scope) of all addresses."""
    found = []
    for body in dump(Request(RTM_GETADDR, 0, IFADDR.pack(0, 0, 0, 0, 0), "list addresses")):
        family, prefix, _, scope, index = IFADDR.unpack_from(body)
        values = attributes(body, IFADDR.size)
        packed = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
        if packed and family in (_socket.AF_INET, _socket.AF_INET6):
            found.append((index, f"{_socket.inet_ntop(family, packed)}/{prefix}", scope))
    return found


def routes() -> list[tuple[str, str, int]]:
    """(destination with prefix length, gateway or "", interface index) of the unicast routes.

    All tables count: a subnet that only a policy route leads to is taken all the same. The
    default route reads `0.0.0.0/0` or `::/0`.
    """
    found = []
    request = Request(RTM_GETROUTE, 0, RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), "list routes")
    for body in dump(request):
        family, prefix, _, _, _, _, _, type, _ = RTMSG.unpack_from(body)
        if type != RTN_UNICAST or family not in (_socket.AF_INET, _socket.AF_INET6):
            continue
        values = attributes(body, RTMSG.size)
        any_address = bytes(4 if family == _socket.AF_INET else 16)
        destination = _socket.inet_ntop(family, values.get(RTA_DST, any_address))
        gateway = values.get(RTA_GATEWAY)
        through = _socket.inet_ntop(family, gateway) if gateway else ""
        found.append((f"{destination}/{prefix}", through, _number(values.get(RTA_OIF))))
    return found


def delete_default_routes(*, ipv6: bool) -> None:
    """Take the default routes of a family away, in the main table; nothing happens where none is."""
    family = _socket.AF_INET6 if ipv6 else _socket.AF_INET
    for destination, gateway, index in routes():
        if destination != ("::/0" if ipv6 else "0.0.0.0/0") or not index:
            continue
        through = attribute(RTA_GATEWAY, _socket.inet_pton(family, gateway)) if gateway else b""
        body = (
            RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, RT_SCOPE_NOWHERE, 0, 0)
            + through
            + attribute_u32(RTA_OIF, index)
        )
        try:
            transact([Request(RTM_DELROUTE, 0, body, "delete default route")])
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def _alias(index: int, alias: str) -> Request:
    body = IFINFO.pack(0, 0, index, 0, 0) + attribute(IFLA_IFALIAS, alias.encode())
    return Request(RTM_NEWLINK, 0, body, f"set alias {alias}")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, "little") if value else 0
