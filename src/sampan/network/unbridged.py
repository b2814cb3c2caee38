"""The networks without an interface of their own: `host` shares the machine's, `none` has loopback."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sampan.network.driver import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.network.driver import Attachment


class UnbridgedNetwork(Places):
    """A network that only keeps the list of its containers.

    Docker gives these an endpoint ID too, and API clients show it.
    """

    def __init__(self, name: str, driver: str, network_id: str | None = None) -> None:
        identity = network_id or hashlib.sha256(f"sampan network {name}".encode()).hexdigest()
        super().__init__(name, identity)
        self.driver = driver

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
        self._check_new(container_id)
        return self._keep(container_id)

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
        return self._keep(container_id, None, endpoint_id)

    def release(self, container_id: str) -> None:
        """Forget the container."""
        self._attachments.pop(container_id, None)

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
