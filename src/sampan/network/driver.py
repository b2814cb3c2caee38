"""What every network offers: an attachment for a container, and its description.

A network is asked for an attachment before the container exists, hands it out from memory, and
is told when the container has gone. Between the two the runtime makes what the attachment
describes: for `bridge` a veth pair, for `host` and `none` nothing. A network never deletes an
interface: a container's die with its network namespace.

    attachment = network.attach(container_id)
    endpoints = [attachment.endpoint] if attachment.endpoint else []
    …                                     # the runtime makes them, the container lives
    network.release(container_id)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from sampan.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sampan.linux.netlink import VethEndpoint


class Attachment:
    """A container's place in a network: the endpoint's ID and, if it has one, its interface.

    `gateway` and `gateway6` are the network's, empty for none; whether the container's default route
    goes that way is `endpoint.gateway` and `.gateway6`. `aliases` are what the user calls it in this
    network, `dns_names` all that it is found by there; `links` are (other container's name, what it
    is called here).
    """

    __slots__ = (
        "aliases",
        "container_id",
        "dns_names",
        "endpoint",
        "endpoint_id",
        "gateway",
        "gateway6",
        "links",
        "network_id",
        "network_name",
        "routed_by_device",
    )

    def __init__(
        self,
        *,
        container_id: str,
        network_id: str,
        network_name: str,
        endpoint: VethEndpoint | None = None,
        endpoint_id: str | None = None,
    ) -> None:
        self.container_id = container_id
        self.network_id = network_id
        self.network_name = network_name
        self.endpoint = endpoint
        self.endpoint_id = endpoint_id or new_id()
        self.gateway = endpoint.gateway if endpoint else ""
        self.gateway6 = endpoint.gateway6 if endpoint else ""
        self.routed_by_device = bool(endpoint and endpoint.device_routes)
        self.aliases: tuple[str, ...] = ()
        self.dns_names: tuple[str, ...] = ()
        self.links: tuple[tuple[str, str], ...] = ()

    @property
    def address(self) -> str:
        """The IPv4 address without its prefix length; empty for none."""
        return self._first(ipv6=False)

    @property
    def address6(self) -> str:
        """The IPv6 address without its prefix length; empty for none."""
        return self._first(ipv6=True)

    @property
    def host_port(self) -> str:
        """The interface on the host by which all of this endpoint's packets come; empty for none."""
        return self.endpoint.host_name if self.endpoint else ""

    def _first(self, *, ipv6: bool) -> str:
        for text in self.endpoint.addresses if self.endpoint else ():
            if (":" in text) == ipv6:
                return text.partition("/")[0]
        return ""


class Network(Protocol):
    """A network of one driver.

    `id` is 64 hex digits and stays the same over restarts; `name` is what `--network` takes.
    """

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def driver(self) -> str: ...

    def attach(
        self,
        container_id: str,
        *,
        mac: str | None = None,
        address: str | None = None,
        address6: str | None = None,
    ) -> Attachment:
        """A place for the container, reserved until `release`; takes microseconds, no I/O.

        Raises:
            Conflict: the container is attached already, or the address is taken.
            InvalidArgument: the MAC or the address is none, or not of this network.
            Unavailable: every address is taken.
        """

    def adopt(
        self,
        container_id: str,
        addresses: Sequence[str] = (),
        mac: str = "",
        *,
        endpoint_id: str | None = None,
        host_name: str = "",
        interface: str = "eth0",
    ) -> Attachment:
        """The place of a container that outlived the daemon, with the addresses that it has, which
        come with or without a prefix length.

        Raises:
            Conflict: another container has the address.
        """

    def release(self, container_id: str) -> None:
        """Give the place back; nothing happens if there is none."""

    def attachment(self, container_id: str) -> Attachment | None:
        """The place the container has, if it has one."""

    def attachments(self) -> Collection[Attachment]:
        """All places in use."""

    def describe(self) -> dict[str, Any]:
        """Driver, IPAM and options as `GET /networks/{id}` shows them."""


class Places:
    """Which containers have a place in a network: what every kind of network keeps of them."""

    def __init__(self, name: str, network_id: str) -> None:
        self.name = name
        self.id = network_id
        self._attachments: dict[str, Attachment] = {}

    def attachment(self, container_id: str) -> Attachment | None:
        """The container's place, if it has one."""
        return self._attachments.get(container_id)

    def attachments(self) -> Collection[Attachment]:
        """All places in use."""
        return self._attachments.values()

    def _check_new(self, container_id: str) -> None:
        """Raise Conflict if the container is attached already."""
        if container_id in self._attachments:
            raise Conflict(
                f"endpoint with name {container_id} already exists in network {self.name}"
            )

    def _keep(
        self,
        container_id: str,
        endpoint: VethEndpoint | None = None,
        endpoint_id: str | None = None,
    ) -> Attachment:
        """Note the container's place and return it."""
        attachment = Attachment(
            container_id=container_id,
            network_id=self.id,
            network_name=self.name,
            endpoint=endpoint,
            endpoint_id=endpoint_id,
        )
        self._attachments[container_id] = attachment
        return attachment


def new_id() -> str:
    """64 hexadecimal digits, as Docker names endpoints and sandboxes."""
    return os.urandom(32).hex()
