"""The Linux bridge of a bridge network: made, given an address, claimed, taken away.

What the kernel has wins: a bridge that is there keeps its address, unless another is asked for.
"""

from __future__ import annotations

import fcntl
import os
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from typing import TYPE_CHECKING

from sampan.errors import Conflict
from sampan.linux import interfaces, netlink
from sampan.network import ipam, pools
from sampan.network.addressed import mac_of
from sampan.network.choosing import choosing_subnet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.network.bridge_wishes import BridgeWishes
    from sampan.network.pools import Pool

ALIAS = "sampan bridge network"  # marks a bridge that we made and may delete
DEFAULT_MTU = 1500


class BridgeInterface:
    """The bridge `name`, as wished.

    Where the wishes name no address, `former` tells those that it had before; the next choice is from
    `available` or, without a pool for the family, the engine's own range.

    `index`, `address`, `address6` and `mtu` are what `ensure` found or made.
    """

    def __init__(
        self,
        name: str,
        wishes: BridgeWishes,
        *,
        available: Sequence[Pool] = (),
        former: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.index = 0
        self.address: IPv4Interface | None = None
        self.address6: IPv6Interface | None = None
        self.mtu = wishes.mtu or DEFAULT_MTU
        self._wishes = wishes
        self._pools = available
        self._former = [ip_interface(text) for text in former]
        self._claim: int | None = None
        self._claimed = 0  # index of the bridge that the claim is on

    @property
    def addresses(self) -> list[IPv4Interface | IPv6Interface]:
        """The bridge's own, IPv4 first."""
        return [found for found in (self.address, self.address6) if found is not None]

    def ensure(self) -> None:
        """Make the bridge or bring it up, with its addresses, and claim it.

        Raises:
            Conflict: the interface is not a bridge, is another engine's, or has another address
                than the wished one and containers on it.
            Unavailable: no subnet is free.
        """
        with choosing_subnet():
            self.address = self._ensure()
            if self._wishes.ipv6:
                self.address6 = self._ensure6()

    def remove(self) -> None:
        """Delete the bridge if it is of our making."""
        link = _link_named(self.name)
        if link is not None and link.alias == ALIAS:
            netlink.delete_link(self.name)
        self.index, self.address, self.address6 = 0, None, None
        self.unclaim()

    def _ensure(self) -> IPv4Interface:
        """The bridge's address, after making the bridge, giving it one or bringing it up."""
        links = interfaces.links()
        link = next((link for link in links if link.name == self.name), None)
        if not self._wishes.mtu:
            self.mtu = min(DEFAULT_MTU, _default_route_mtu(links))
        if link is None:
            return self._create()
        if link.kind != "bridge":
            raise Conflict(f"interface {self.name} exists and is not a bridge")
        self._claim_it(link.index)
        address = _address_of(link.index)
        if address is not None and not self._wishes.admits(address):
            return self._replace(link, address, links)
        if address is None:
            address = self._pick_address()
            interfaces.add_address(self.name, str(address))
        if not link.up:
            interfaces.set_up(self.name)
        self.index = link.index
        return address

    def _create(self) -> IPv4Interface:
        address = self._pick_address()
        self.index = interfaces.create_bridge(
            self.name,
            mac=mac_of(address.ip.packed),
            address=str(address),
            mtu=self.mtu,
            alias=ALIAS,
        )
        self._claim_it(self.index)
        return address

    def _replace(
        self, link: interfaces.Link, address: IPv4Interface, links: list[interfaces.Link]
    ) -> IPv4Interface:
        """Another address than the bridge has was asked for."""
        if link.alias != ALIAS or any(port.master == link.index for port in links):
            raise Conflict(
                f"bridge {self.name} has the address {address}, not {self._wishes.address_of(4)}",
                hint="stop the containers on it first, or choose another bridge with --bridge",
            )
        netlink.delete_link(self.name)
        return self._create()

    def _ensure6(self) -> IPv6Interface:
        """The address of IPv6, added if need be; one that is not wished any more goes."""
        there = [
            IPv6Interface(text)
            for index, text in interfaces.addresses()
            if index == self.index and ":" in text
        ]
        there = [address for address in there if not address.is_link_local]
        for address in there:
            if not self._wishes.admits(address):
                interfaces.delete_address(self.name, str(address))
        fitting = [address for address in there if self._wishes.admits(address)]
        if fitting:
            return fitting[0]
        wanted = self._picked(6)
        interfaces.add_address(self.name, str(wanted))
        return IPv6Interface(wanted)

    def _pick_address(self) -> IPv4Interface:
        return IPv4Interface(self._picked(4))

    def _picked(self, version: int) -> IPv4Interface | IPv6Interface:
        """What the user says, the subnet in use so far, or the first one that nobody uses."""
        asked = self._wishes.address_of(version) or (
            self.address if version == 4 else self.address6
        )
        if asked:
            return asked
        texts = [destination for destination, _, _ in interfaces.routes()]
        texts += [address for _, address in interfaces.addresses()]
        taken = [ip_network(text, strict=False) for text in texts]
        taken = [subnet for subnet in taken if subnet.prefixlen]
        for address in self._former:
            if address.version == version and not pools.overlapping(address.network, taken):
                return address
        if any(pool.base.version == version for pool in self._pools):
            subnet = pools.choose(self._pools, version, taken)
        else:
            subnet = ipam.choose_subnet(texts)
        return ip_interface(f"{subnet[1]}/{subnet.prefixlen}")

    def _claim_it(self, index: int) -> None:
        """Hold a lock on the bridge itself, so that two engines never hand out its addresses.

        The lock is on a file of the interface that only root may open and that goes when the
        interface goes, so it can neither be taken by others nor left behind.
        """
        if self._claimed == index:
            return
        self.unclaim()  # of a bridge that is no more
        directory = f"/sys/class/net/{self.name}"
        try:
            with open(f"{directory}/ifindex", encoding="ascii") as file:
                if int(file.read()) != index:
                    return  # a /sys that shows another network namespace, with a bridge of that name
            claim = os.open(f"{directory}/bridge/flush", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # a /sys that shows another network namespace
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
            raise Conflict(
                f"bridge {self.name} is in use by another engine",
                hint="choose another bridge with --bridge",
            ) from None
        self._claim, self._claimed = claim, index

    def unclaim(self) -> None:
        """Let another engine have the bridge."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None
        self._claimed = 0


def _link_named(name: str) -> interfaces.Link | None:
    return next((link for link in interfaces.links() if link.name == name), None)


def _address_of(index: int) -> IPv4Interface | None:
    """The interface's first IPv4 address."""
    for owner, address in interfaces.addresses():
        if owner == index and ":" not in address:
            return IPv4Interface(address)
    return None


def _default_route_mtu(links: list[interfaces.Link]) -> int:
    """MTU of the interface that the IPv4 default route leaves by; 1500 if there is none."""
    mtus = {link.index: link.mtu for link in links}
    for destination, _, index in interfaces.routes():
        if destination == "0.0.0.0/0":
            return mtus.get(index, DEFAULT_MTU)
    return DEFAULT_MTU
