"""The networks without an interface of their own: `host` shares the machine's, `none` has loopback."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sampan.errors import Conflict
from sampan.network.driver import Attachment

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class UnbridgedNetwork:
    """A network that only keeps the list of its containers.

    Docker gives these an endpoint ID too, and API clients show it.
    """

    def __init__(self, name: str, driver: str, network_id: str | None = None) -> None:
        self.name = name
        self.driver = driver
        self.id = network_id or hashlib.sha256(f"sampan network {name}".encode()).hexdigest()
        self._attachments: dict[str, Attachment] = {}

    def attach(
        self,
        container_id: str,
        *,
        mac: str | None = None,
        address: str | None = None,
        address6: str | None = None,
    ) -> Attachment:
        """A place without an interface; a MAC or an address means nothing here and is ignored.

        Raises:
            Conflict: the container is attached already.
        """
        if container_id in self._attachments:
            raise Conflict(
                f"endpoint with name {container_id} already exists in network {self.name}"
            )
        attachment = Attachment(
            container_id=container_id, network_id=self.id, network_name=self.name
        )
        self._attachments[container_id] = attachment
        return attachment

    def adopt(
        self,
        container_id: str,
        addresses: Sequence[str] = (),
        mac: str = "",
        *,
        endpoint_id: str | None = None,
        host_name: str = "",
        interface: str = "",
    ) -> Attachment:
        """The place of a container that outlived the daemon."""
        attachment = Attachment(
            container_id=container_id,
            network_id=self.id,
            network_name=self.name,
            endpoint_id=endpoint_id,
        )
        self._attachments[container_id] = attachment
        return attachment

    def release(self, container_id: str) -> None:
        """Forget the container."""
        self._attachments.pop(container_id, None)

    def attachment(self, container_id: str) -> Attachment | None:
        """The container's place, if it has one."""
        return self._attachments.get(container_id)

    def attachments(self) -> Collection[Attachment]:
        """All places in use."""
        return self._attachments.values()

    def describe(self) -> dict[str, Any]:
        """Neither addresses nor options."""
        return {
            "Driver": self.driver,
            "IPAM": {"Driver": "default", "Options": None, "Config": []},
            "Options": {},
        }


def host_network(network_id: str | None = None) -> UnbridgedNetwork:
    """The machine's own network namespace."""
    return UnbridgedNetwork("host", "host", network_id)


def none_network(network_id: str | None = None) -> UnbridgedNetwork:
    """A network namespace with nothing but a loopback."""
    return UnbridgedNetwork("none", "null", network_id)
