"""What all networks with addresses of their own have in common: who is attached, with which of them."""

from __future__ import annotations

import os
import re
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument, Unavailable
from sampan.network.driver import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.linux.netlink import VethEndpoint
    from sampan.network.driver import Attachment
    from sampan.network.ipam import AddressPool

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class AddressedNetwork(Places):
    """Attachments from memory; the kinds of network say what interface each of them gets."""

    driver = ""

    def __init__(self, name: str, network_id: str) -> None:
        super().__init__(name, network_id)
        self._pools: list[AddressPool[Any]] = []  # of IPv4 first; at most one a family

    def attach(
        self,
        container_id: str,
        *,
        mac: str | None = None,
        address: str | None = None,
        address6: str | None = None,
    ) -> Attachment:
        """Reserve addresses and describe the interface; see `Network.attach`.

        The MAC follows from the IPv4 address unless given, as Docker's does: a neighbour that still
        has the address cached from a former container has the right MAC.
        """
        self._check_new(container_id)
        if mac is not None:
            mac = checked_mac(mac)
        self._check()
        taken: list[tuple[AddressPool[Any], Any]] = []
        try:
            for pool in self._pools:
                wanted = address6 if pool.subnet.version == 6 else address
                taken.append((pool, pool.reserve(wanted) if wanted else pool.take()))
            endpoint = self._endpoint(
                mac or _mac_for([found for _, found in taken]),
                [f"{found}/{pool.subnet.prefixlen}" for pool, found in taken],
                host_name="",
            )
        except BaseException as error:
            for pool, found in taken:
                pool.release(found)
            if isinstance(error, OSError):
                raise Unavailable(
                    f"network {self.name}: {error.strerror or error}: no place for another container"
                ) from error
            raise
        return self._keep(container_id, endpoint)

    def adopt(
        self,
        container_id: str,
        addresses: Sequence[str] | str = (),
        mac: str = "",
        *,
        endpoint_id: str | None = None,
        host_name: str = "",
        interface: str = "eth0",
    ) -> Attachment:
        """Take over a container that outlived the daemon, with the addresses it has; see
        `Network.adopt`. One that is of no subnet (the network has another one since) is kept as
        it is.
        """
        self._check()
        texts = [addresses] if isinstance(addresses, str) else addresses
        complete = []
        for text in texts:
            found = ip_interface(text)
            pool = next((p for p in self._pools if found.ip in p.subnet), None)
            if pool is not None:
                pool.reserve(str(found.ip))
            family = next((p for p in self._pools if p.subnet.version == found.version), None)
            given = "/" in text or family is None
            prefix = found.network.prefixlen if given else family.subnet.prefixlen  # type: ignore[union-attr]
            complete.append(f"{found.ip}/{prefix}")
        endpoint = self._endpoint(mac, complete, host_name=host_name)
        endpoint.name = interface
        return self._keep(container_id, endpoint, endpoint_id)

    def release(self, container_id: str) -> None:
        """Free the container's addresses; nothing happens if it has none."""
        attachment = self._attachments.pop(container_id, None)
        if attachment is None or attachment.endpoint is None:
            return
        for text in attachment.endpoint.addresses:
            address = ip_interface(text).ip
            for pool in self._pools:
                if address in pool.subnet:
                    pool.release(address)
        self._left(attachment)

    def status(self) -> dict[str, dict[str, int]]:
        """Docker's `SubnetStatuses`: how many addresses of each subnet are in use and left."""
        return {
            str(pool.subnet): {
                "IPsInUse": pool.taken + (2 if pool.subnet.version == 4 else 1),
                "DynamicIPsAvailable": min(pool.free, 2**63 - 1),
            }
            for pool in self._pools
        }

    # What a kind of network adds

    def _check(self) -> None:
        """Raise if nothing can be attached now."""

    def _endpoint(self, mac: str, addresses: Sequence[str], *, host_name: str) -> VethEndpoint:
        """The interface; with `host_name` that of a container that runs."""
        raise NotImplementedError

    def _left(self, attachment: Attachment) -> None:
        """An attachment has been released."""

    # For them

    def _set_pools(self, pools: list[AddressPool[Any]]) -> None:
        """Hand out these addresses, but for those in use."""
        self._pools = pools
        for attachment in self._attachments.values():
            for text in attachment.endpoint.addresses if attachment.endpoint else ():
                address = ip_interface(text).ip
                for pool in pools:
                    if address in pool.subnet and address != pool.gateway:
                        pool.reserve(str(address))

    def _forget(self) -> None:
        self._attachments.clear()
        self._pools = []


def mac_of(packed: bytes) -> str:
    """A locally administered MAC made of an IPv4 address, in Docker's form."""
    return (b"\x02\x42" + packed).hex(":")


def _mac_for(addresses: Sequence[Any]) -> str:
    packed = next((address.packed for address in addresses if address.version == 4), None)
    return mac_of(packed or os.urandom(4))


def checked_mac(mac: str) -> str:
    """A MAC in its usual spelling.

    Raises:
        InvalidArgument: it is none, or one of a group.
    """
    lowered = mac.lower().replace("-", ":")
    if not _MAC.fullmatch(lowered):
        raise InvalidArgument(f"invalid MAC address: {mac}")
    if int(lowered[:2], 16) & 1:
        raise InvalidArgument(f"invalid MAC address: {mac} is a multicast address")
    return lowered
