"""The interfaces that macvlans and ipvlans hang on: found, or made and taken away again.

A parent is one of the machine's, or of our making: a dummy `dm-<ID>` for a network that names none, or
the VLAN 20 of `eth0` for one that names `eth0.20` where that does not exist. An alias says which network
a parent was made for; who shares it inherits it. Messages are dockerd's where it has one.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, NotFound, Unavailable, Unsupported
from sampan.linux import interfaces, netlink

if TYPE_CHECKING:
    from sampan.network.machine import Machine

ALIAS = "sampan parent of "
_VLANS = range(1, 4095)
_NO_SUCH_KIND = (errno.EOPNOTSUPP, errno.ENODEV)


def dummy_name(network_id: str) -> str:
    """What the parent of a network without one is called, as dockerd calls it."""
    return f"dm-{network_id[:12]}"


def alias(owner: str, network_id: str) -> str:
    """What a parent of our making bears; `owner` is the engine's."""
    return f"{ALIAS}{owner} {network_id}"


def make(name: str, machine: Machine, mark: str) -> int:
    """Make the dummy or the VLAN of that name, up, and return its index.

    Raises:
        InvalidArgument, NotFound: the name is of no VLAN that there can be.
        Unsupported: the kernel has no such interfaces.
        Unavailable: it refuses.
    """
    dummy = name.startswith("dm-")
    upper, tag = ("", 0) if dummy else _vlan(name, machine)
    try:
        if dummy:
            return interfaces.create_link(name, "dummy", alias=mark)
        return interfaces.create_vlan(name, machine.by_name[upper].index, tag, alias=mark)
    except OSError as error:
        if error.errno in _NO_SUCH_KIND:
            raise unsupported("dummy" if dummy else "vlan") from error
        raise Unavailable(f"failed to create {name}: {error.strerror}") from error


def probe(kind: str, index: int, name: str, mode: int, flags: int) -> None:
    """Whether interfaces of this kind (macvlan, ipvlan) can hang on that parent, in this mode.

    Raises:
        Unsupported: the kernel has none of the kind.
        Unavailable: the parent cannot have them.
    """
    try:
        interfaces.probe_on_parent(kind, index, mode, flags)
    except OSError as error:
        if error.errno in _NO_SUCH_KIND:
            raise unsupported(kind) from error
        raise Unavailable(f"{name} cannot be the parent of a {kind}: {error.strerror}") from error


def take_away(name: str, owner: str, network_id: str, heir: str) -> None:
    """Delete a parent that was made for this network, or hand it to the network `heir`."""
    link = next((link for link in interfaces.links() if link.name == name), None)
    if link is None or link.alias != alias(owner, network_id):
        return
    if heir:
        interfaces.set_alias(name, alias(owner, heir))
    else:
        netlink.delete_link(name)


def strays(machine: Machine, owner: str, known: Collection[str]) -> list[str]:
    """The names of parents that this engine made for networks that are none."""
    prefix = alias(owner, "")
    return [
        link.name
        for link in machine.links
        if link.alias.startswith(prefix) and link.alias.removeprefix(prefix) not in known
    ]


def unsupported(kind: str) -> Unsupported:
    return Unsupported(
        f"this kernel has no {kind} interfaces",
        hint=f"try modprobe {kind}, or a kernel built with them",
    )


def _vlan(name: str, machine: Machine) -> tuple[str, int]:
    """`eth0.20`: the interface, and the VLAN's number on it."""
    if "." not in name:
        raise InvalidArgument(
            f"invalid subinterface vlan name {name}, example formatting is eth0.10"
        )
    upper, _, tag = name.partition(".")
    if "." in tag:
        raise InvalidArgument(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, "
            f"instead received {name}"
        )
    if not (tag.isascii() and tag.isdecimal() and len(tag) < 10):
        raise InvalidArgument(
            f"unable to parse a valid vlan id from: {tag} (ex. eth0.10 for vlan 10)"
        )
    if upper not in machine.by_name:
        raise NotFound(f"-o parent interface was not found on the host: {upper}")
    if int(tag) not in _VLANS:
        raise InvalidArgument(f"vlan id must be between 1-4094, received: {int(tag)}")
    return upper, int(tag)
