"""`network connect` and `disconnect`: a container's networks changed, also while it runs.

The database is written before an interface is made and after it is taken away, and says meanwhile that the
container's interfaces are being changed: the daemon that follows one that was killed between the two
makes them what they have to be (`put_back`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sampan.engine import network_files
from sampan.engine.container import Container, Endpoint
from sampan.engine.endpoint_wishes import (
    attach,
    check_wish,
    choose_routes,
    name_interfaces,
    noted,
)
from sampan.engine.lifecycle import Lifecycle
from sampan.engine.model import EndpointConfig
from sampan.engine.networking import HOST, NONE, check_together
from sampan.engine.networks import Networks
from sampan.engine.services import Services
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound, SampanError
from sampan.linux import interfaces
from sampan.network import plugging
from sampan.network.driver import Attachment, Network

if TYPE_CHECKING:
    from collections.abc import Iterator


log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Connections:
    """Changes which networks containers are in.

    `told` waits until everybody who was told of a change has done what follows from it: the resolver.
    """

    def __init__(self, services: Services, networks: Networks, lifecycle: Lifecycle) -> None:
        self._registry = services.registry
        self._networking = services.networking
        self._networks = networks
        self._lifecycle = lifecycle
        self.told: Callable[[], Awaitable[None]] = _at_once

    async def connect(
        self, network_reference: str, container_reference: str, wish: EndpointConfig | None
    ) -> None:
        """Put a container into a network; with an interface at once if it runs.

        Raises:
            NotFound, Forbidden, InvalidArgument, Conflict, Unavailable: in dockerd's words; then all is
                as before.
        """
        container = self._registry.find(container_reference)
        entry = self._networks.get(network_reference)
        if entry.record.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        network = entry.network
        if network is None or entry.removing:
            raise NotFound(f"network {network_reference} not found")
        async with container.lock:
            self._check(container, network, wish)
            wishes = dict(container.record.networking.endpoints_config or {})
            former = wishes.get(network.name)
            wishes[network.name] = wish or EndpointConfig()
            container.record.networking.endpoints_config = wishes
            try:
                if container.state.running:
                    await self._plug(container, network)
                else:
                    container.record.endpoints[network.name] = Endpoint(
                        network=network.name, network_id=network.id
                    )
                    self._registry.write(container)
            except BaseException:
                wishes.pop(network.name)
                if former is not None:
                    wishes[network.name] = former
                container.record.endpoints.pop(network.name, None)
                self._registry.save(container)
                raise
        if container.state.running:
            await self.told()
            self._lifecycle.emit_network(container, "connect", network.name, network.id)

    async def disconnect(
        self, network_reference: str, container_reference: str, *, force: bool = False
    ) -> None:
        """Take a container out of a network; with `force` also one that does not exist any more.

        Raises:
            NotFound, InvalidArgument: in dockerd's words.
            SampanError: it is not in it; a failure of the engine, as dockerd has it.
        """
        try:
            container = self._registry.find(container_reference)
        except NotFound:
            if force:
                self._networks.get(network_reference)
                raise NotFound(f"endpoint {container_reference} not found") from None
            raise
        entry = self._networks.get(network_reference)
        network = entry.network
        async with container.lock:
            if HOST in (entry.name, self._networking.mode(container)):
                raise InvalidArgument(
                    "container cannot be disconnected from host network or connected to host network"
                )
            if network is None or network.name not in container.record.endpoints:
                raise SampanError(
                    f"container {container.id} is not connected to network {entry.name}"
                )
            ran = container.state.running
            await self._unplug(container, network)
        if ran:
            await self.told()
            self._lifecycle.emit_network(container, "disconnect", network.name, network.id)

    async def put_back(self, containers: Iterable[Container]) -> None:
        """Make what running containers have lost: interfaces, and their places on the bridges."""
        containers = list(containers)
        missing = await asyncio.to_thread(_lost, self._of(containers))
        for container in containers:
            if container.record.replugging:
                missing += await self._unfinished(container)
        for container, attachment in missing:
            log.warning(
                "container %s: putting back its interface in network %s",
                container.id,
                attachment.network_name,
            )
            assert attachment.endpoint is not None
            try:
                await self._in(container, plugging.plug, attachment.endpoint)
                await self._route(container)
                network_files.add_address(container, attachment)
            except SampanError as error:
                log.error("container %s: %s", container.id, error.message)

    async def _unfinished(self, container: Container) -> list[tuple[Container, Attachment]]:
        """The places of a container whose interfaces a former daemon was changing that are not as they
        have to be; what there is of them is gone then, and its default routes are right."""
        found = []
        try:
            if container.state.running:
                for _, attachment in self._networking.attachments(container):
                    end = attachment.endpoint
                    if end is None:
                        continue
                    if await self._in(container, plugging.is_plugged, end):
                        network_files.add_address(container, attachment)
                        continue
                    await self._in(container, plugging.unplug, end.name, end.host_name)
                    found.append((container, attachment))
                if not found:
                    await self._route(container)
        except SampanError as error:
            log.error("container %s: %s", container.id, error.message)
        container.record.replugging = False
        self._registry.save(container)
        return found

    def _of(self, containers: Iterable[Container]) -> list[tuple[Container, Attachment]]:
        """The places of containers on bridges that this engine knows the ports of."""
        return [
            (container, attachment)
            for container in containers
            if container.state.running
            for network, attachment in self._networking.attachments(container)
            if container.record.endpoints[network.name].host_port
        ]

    def _check(self, container: Container, network: Network, wish: EndpointConfig | None) -> None:
        mode = self._networking.mode(container)
        if HOST in (mode, network.name):
            raise InvalidArgument(
                "container cannot be disconnected from host network or connected to host network"
            )
        if mode.startswith("container:"):
            raise InvalidArgument(
                "container sharing network namespace with another container or host cannot be "
                "connected to any other network"
            )
        if network.name in container.record.endpoints:
            raise Forbidden(
                f"endpoint with name {container.name} already exists in network {network.name}"
            )
        names = [*container.record.endpoints, network.name]
        check_together(mode if mode == NONE and NONE in names else "", names)
        if wish is not None:
            check_wish(wish, network)

    async def _plug(self, container: Container, network: Network) -> None:
        """Into a container that runs, or not at all."""
        record, networking = container.record, self._networking
        before = networking.attachments(container)
        attachment = attach(container, network)
        try:
            used = {e.interface for e in record.endpoints.values() if e.interface}
            name_interfaces(container, [(network, attachment)], used)
            choose_routes(container, [*before, (network, attachment)])
            record.endpoints[network.name] = noted(attachment)
            record.replugging = True
            self._registry.write(container)
            networking.tell_attached(container, network, attachment)
            if attachment.endpoint is not None:
                await self._in(container, plugging.plug, attachment.endpoint)
                await self._route(container)
                network_files.add_address(container, attachment)
            record.replugging = False
            self._registry.save(container)
        except BaseException:
            record.replugging = False  # written with the undoing
            if networking.is_in(container, network):
                networking.release(container, network, attachment)
            choose_routes(container, networking.attachments(container))
            raise

    async def _unplug(self, container: Container, network: Network) -> None:
        attachment = network.attachment(container.id)
        if attachment is not None:
            end = attachment.endpoint
            if end is not None and container.state.running:
                container.record.replugging = True
                self._registry.write(container)
                await self._in(container, plugging.unplug, end.name, end.host_name)
                network_files.remove_address(container, attachment)
            if network.attachment(container.id) is attachment:  # it may have ended meanwhile
                self._networking.release(container, network, attachment)
        container.record.endpoints.pop(network.name, None)
        (container.record.networking.endpoints_config or {}).pop(network.name, None)
        remaining = self._networking.attachments(container)
        choose_routes(container, remaining)
        self._registry.write(container)
        if attachment is not None and attachment.endpoint is not None and container.state.running:
            await self._route(container)
        if container.record.replugging:
            container.record.replugging = False
            self._registry.save(container)

    async def _route(self, container: Container) -> None:
        """Set the default routes anew, and say so."""
        ends = [a.endpoint for _, a in self._networking.attachments(container) if a.endpoint]
        await self._in(container, plugging.route, ends)
        for watcher in self._networking.watchers:
            watcher.rerouted(container)

    async def _in(
        self, container: Container, work: Callable[..., Result], *arguments: object
    ) -> Result:
        """Do what blocks in a thread, with a pidfd of the container that stays open meanwhile."""
        with _pidfd(container) as pidfd:
            return await asyncio.to_thread(work, pidfd, *arguments)


async def _at_once() -> None:
    """Nobody has to be waited for."""


@contextmanager
def _pidfd(container: Container) -> Iterator[int]:
    shim = container.shim
    if shim is None or shim.pidfd is None:
        raise Conflict(f"container {container.id} is not running")
    pidfd = os.dup(shim.pidfd)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _lost(
    places: list[tuple[Container, Attachment]],
) -> list[tuple[Container, Attachment]]:
    """Those whose interface is gone; one that is only off its bridge is put on it. Blocks."""
    if not places:
        return []
    found = {link.name: link for link in interfaces.links()}
    lost = []
    for container, attachment in places:
        end = attachment.endpoint
        if end is None or end.kind != "veth":
            continue
        link = found.get(end.host_name)
        if link is None:
            lost.append((container, attachment))
        elif link.master != end.bridge_index or not link.up:
            try:
                interfaces.join_bridge(end.host_name, end.bridge_index, isolated=end.isolated)
            except OSError as error:
                log.error("container %s: interface %s: %s", container.id, end.host_name, error)
    return lost
