"""Names of containers: who is served by the embedded resolver, and what it is told of them.

Containers on networks of the user's own find each other by name at 127.0.0.11, and so do those under an
egress policy, whose names the policy is bound to. The resolver is a process of its own
(`network.names`); this is the daemon's picture of what it knows, derived anew from the containers.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sampan.engine.container import Container
from sampan.engine.numbers import decimal
from sampan.errors import Unavailable
from sampan.network.names.client import NamesClient
from sampan.network.names.upstreams import SERVERS_MAX, is_address

if TYPE_CHECKING:
    from sampan.engine.networking import Networking
    from sampan.network.driver import Attachment, Network
    from sampan.network.names.client import Message

log = logging.getLogger(__name__)


class Resolver:
    """Watches endpoints and lives of containers, and tells the resolver.

    `policy` gives a container's egress policy as the resolver is to know it, None for none.
    """

    def __init__(
        self, run_directory: str, networking: Networking, containers: Iterable[Container]
    ) -> None:
        self._networking = networking
        self._containers = containers
        self.client = NamesClient(run_directory, self._everything)
        self.policy: Callable[[Container], Message | None] = lambda _: None
        self._served: set[str] = set()

    def serves(self, container: Container, *, leaving: Attachment | None = None) -> bool:
        """Whether the container asks 127.0.0.11: by its networks, or by its policy."""
        attachments = self._attachments(container, leaving)
        if any(attachment.dns_names for _, attachment in attachments):
            return True
        reachable = any(attachment.endpoint is not None for _, attachment in attachments)
        return reachable and self.policy(container) is not None

    def refresh(self, container: Container, *, leaving: Attachment | None = None) -> None:
        """Tell what has changed of a container that runs: networks, links, policy.

        One that asks 127.0.0.11 only from now on finds so in its resolv.conf, unless that was edited.
        """
        if container.shim is None or not container.state.running:
            self._served.discard(container.id)
        elif container.id in self._served:
            self._serve(container, leaving)
        elif self.serves(container, leaving=leaving):
            self._networking.use_resolver(container)
            self._serve(container, leaving)

    async def caught_up(self) -> None:
        """Until the resolver has done what it was told, also one that was started for it just now.

        Who changes a container that runs answers then: a look-up that follows finds sockets there. One
        that is replaced meanwhile is not waited for.
        """
        with contextlib.suppress(Unavailable):
            await self.client.ask("ping")

    async def refused(self, container: Container) -> list[Any]:
        """The names that the container's policy refused since it started, as the gate counts them."""
        try:
            answer = await self.client.ask("refused", container=container.id)
        except Unavailable:
            return []
        found: list[Any] = answer["refused"]
        return found

    # Endpoints

    def attached(
        self, container: Container, network: Network, attachment: Attachment, *, adopted: bool
    ) -> None:
        """It is found by its names from here on."""
        if adopted:
            return  # told with everything
        for message in _place(container, network, attachment):
            self.client.tell(message)
        self.refresh(container)

    def detached(self, container: Container, network: Network, attachment: Attachment) -> None:
        """It is found no more."""
        if attachment.dns_names:
            self.client.tell(
                {"type": "unplace", "network": attachment.network_id, "container": container.id}
            )
            self.refresh(container, leaving=attachment)

    def rerouted(self, container: Container) -> None:
        """The order in which its networks are searched may be another."""
        self.refresh(container)

    def renamed(self, container: Container) -> None:
        """It is found by its new names, and by its old ones no more."""
        for network, attachment in self._networking.attachments(container):
            for message in _place(container, network, attachment):
                self.client.tell(message)

    # Lives

    def running(self, container: Container) -> None:
        """Its process runs: what it has asked already is answered now."""
        if self.serves(container):
            self._serve(container)

    def halted(self, container: Container) -> None:
        """The resolver sees the end itself."""

    def _serve(self, container: Container, leaving: Attachment | None = None) -> None:
        shim = container.shim
        assert shim is not None
        try:
            pidfd = shim.pidfd
        except Unavailable:
            return  # it has ended
        self._served.add(container.id)
        self.client.tell(self._description(container, leaving), [pidfd, *shim.sockets])
        shim.drop_sockets()

    def _attachments(
        self, container: Container, leaving: Attachment | None
    ) -> list[tuple[Network, Attachment]]:
        """The container's networks, but for the one that it is leaving."""
        return [
            (network, attachment)
            for network, attachment in self._networking.attachments(container)
            if attachment is not leaving
        ]

    # What it knows

    def _everything(self) -> Iterator[tuple[Message, Sequence[int]]]:
        running = [each for each in self._containers if each.shim is not None]
        for container in self._containers:
            for network, attachment in self._networking.attachments(container):
                for message in _place(container, network, attachment):
                    yield message, ()
        for container in running:
            if container.shim is None or not self.serves(container):
                continue
            try:
                fds = [container.shim.pidfd, *container.shim.sockets]
            except Unavailable:
                continue  # it has ended
            yield self._description(container), fds

    def _description(self, container: Container, leaving: Attachment | None = None) -> Message:
        """All that the resolver has to know of a container that it serves."""
        host, state = container.host_config, container.state
        attachments = self._attachments(container, leaving)
        networks = [
            {
                "id": attachment.network_id,
                "links": {alias.lower(): _searched(name) for name, alias in attachment.links},
            }
            for _, attachment in attachments
            if attachment.dns_names
        ]
        servers = [server for server in host.dns or () if is_address(server)]
        return {
            "type": "serve",
            "container": container.id,
            "process": [state.pid, state.started_ns],
            "networks": networks,
            "leads_out": any(not getattr(network, "internal", False) for network, _ in attachments),
            "servers": servers[:SERVERS_MAX] or None,
            "ndots": _has_ndots(host.dns_options or ()),
            "policy": self.policy(container),
        }


def _place(container: Container, network: Network, attachment: Attachment) -> Iterator[Message]:
    """What tells of a container in a network whose containers find each other."""
    if not attachment.dns_names:
        return
    yield {"type": "network", "id": attachment.network_id, "name": attachment.network_name}
    yield {
        "type": "place",
        "network": attachment.network_id,
        "container": container.id,
        "names": list(attachment.dns_names),
        "address": attachment.address,
        "address6": attachment.address6,
    }


def _searched(name: str) -> str:
    """A link's container as it is found: by its name, or its short ID."""
    is_id = len(name) == 64 and all(digit in "0123456789abcdef" for digit in name)
    return name[:12] if is_id else name.removeprefix("/").lower()


def _has_ndots(options: Iterable[str]) -> bool:
    """Whether the user set `ndots` to more than 0."""
    for option in options:
        name, _, value = option.partition(":")
        if name == "ndots" and decimal(value):
            return True
    return False
