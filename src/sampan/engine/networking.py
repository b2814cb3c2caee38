"""A container's networks: which it joins, its addresses, and the files that speak of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from sampan.engine import bound_ports
from sampan.engine.container import Container, Endpoint
from sampan.engine.endpoint_wishes import (
    NOTHING,
    addresses_of,
    attach,
    choose_routes,
    name_interfaces,
    name_it,
    noted,
    wish_for,
)
from sampan.engine.model import EndpointConfig, HostConfig
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound, SampanError
from sampan.linux.netlink import VethEndpoint
from sampan.network import files, inspect
from sampan.network.bridge import BridgeNetwork
from sampan.network.driver import Attachment, Network
from sampan.network.unbridged import host_network, none_network

log = logging.getLogger(__name__)

HOST = "host"
NONE = "none"
BRIDGE = "bridge"


class EndpointWatcher(Protocol):
    """Who is told which container is in which network, such as published ports, names, policies.

    All of it on the event loop, and part of a start: no blocking longer than a message to the kernel.
    """

    def attached(
        self, container: Container, network: Network, attachment: Attachment, *, adopted: bool
    ) -> None:
        """It has its place, and perhaps no process yet: all its networks are known, in
        `Networking.attachments(container)`. `adopted`: it has had it since before this daemon ran.

        What is raised undoes the start or the connecting: `detached` follows, also for who raised.
        """

    def detached(self, container: Container, network: Network, attachment: Attachment) -> None:
        """It has left the network, or ended. Idempotent; must not fail."""

    def rerouted(self, container: Container) -> None:
        """The network that its default route leads through has changed while it runs."""

    def renamed(self, container: Container) -> None:
        """The names that it is found by have changed: `Attachment.dns_names`."""


class Networking:
    """Attaches containers to the networks that there are; which those are is `networks.Networks`'.

    `networks` is by name. `find` looks up the container of `container:REF`. `host_gateway` is what
    `host-gateway` means in extra hosts, if not the default bridge.
    """

    def __init__(
        self, bridge: BridgeNetwork, find: Callable[[str], Container], *, host_gateway: str = ""
    ) -> None:
        self.bridge = bridge
        self.networks: dict[str, Network] = {
            network.name: network for network in (bridge, host_network(), none_network())
        }
        self._names = {network.id: network.name for network in self.networks.values()}
        self.configurations: set[str] = set()  # names of networks that are nothing else
        self._find = find
        self._host_gateway = host_gateway
        self.watchers: list[EndpointWatcher] = []
        # Whether a container asks the embedded resolver.
        self.asks_resolver: Callable[[Container], bool] = lambda _: False
        # What links add to a container's hosts, and to its environment.
        self.link_lines: Callable[[Container], list[str]] = lambda _: []
        self.link_variables: Callable[[Container], list[str]] = lambda _: []
        self.resolve_links: Callable[[str, HostConfig], None] = lambda _, __: None

    def name_of(self, container_id: str) -> str:
        """The name of a container, empty when there is none."""
        try:
            return self._find(container_id).name
        except NotFound:
            return ""

    def add(self, network: Network) -> None:
        """One network more."""
        self.networks[network.name] = network
        self._names[network.id] = network.name

    def drop(self, network: Network) -> None:
        """It is no more; nothing happens if it was not known."""
        self.networks.pop(network.name, None)
        self._names.pop(network.id, None)

    def network(self, reference: str) -> Network:
        """The network of that ID, name or unique beginning of an ID.

        Raises:
            NotFound: there is none; InvalidArgument: there are several; dockerd's texts.
        """
        name = self._names.get(reference, reference)
        if (found := self.networks.get(name)) is not None:
            return found
        names = [name for identity, name in self._names.items() if identity.startswith(reference)]
        if len(names) > 1:
            raise InvalidArgument(
                f"network {reference} is ambiguous ({len(names)} matches found based on ID prefix)"
            )
        if reference in self.configurations:
            raise Forbidden("cannot create endpoint on configuration-only network")
        if not names or not reference:
            raise NotFound(f"network {reference} not found")
        return self.networks[names[0]]

    def is_in(self, container: Container, network: Network) -> bool:
        """Whether the container has a place in the network now."""
        return network.attachment(container.id) is not None

    def attachments(self, container: Container) -> list[tuple[Network, Attachment]]:
        """The networks that the container is in, in the order of its interfaces."""
        found = []
        for name in container.record.endpoints:
            network = self.networks.get(name)
            attachment = network.attachment(container.id) if network else None
            if network is not None and attachment is not None:
                found.append((network, attachment))
        return found

    def mode(self, container: Container) -> str:
        """`bridge`, `host`, `none` or `container:REF`."""
        if container.config.network_disabled:
            return NONE
        return normalised_mode(container.host_config.network_mode)

    def connect(self, container: Container) -> list[VethEndpoint]:
        """Give the container its places in all its networks; the runtime makes the interfaces.

        A network that does not exist is noticed here and not at create, as in dockerd: clients
        take a 404 of create for a missing image. When it raises, `disconnect` is still to be called.

        Raises:
            NotFound: there is no such network.
            Unavailable: no address is left.
            InvalidArgument, Conflict: a MAC or address that cannot be had.
            SampanError: a watcher refused.
        """
        mode = self.mode(container)
        record = container.record
        if mode.startswith("container:"):
            record.endpoints = {}
            return []
        names = [NONE] if container.config.network_disabled else list(record.endpoints)
        networks = [self.network(name) for name in names]
        check_together(mode, [network.name for network in networks])
        record.endpoints = {network.name: Endpoint(network=network.name) for network in networks}
        joined = [(network, attach(container, network)) for network in networks]
        name_interfaces(container, joined, set())
        choose_routes(container, joined)
        record.endpoints = {network.name: noted(attachment) for network, attachment in joined}
        for network, attachment in joined:
            self.tell_attached(container, network, attachment)
        return [attachment.endpoint for _, attachment in joined if attachment.endpoint]

    def tell_attached(self, container: Container, network: Network, attachment: Attachment) -> None:
        """Tell the watchers of a new place; what one of them raises goes on."""
        for watcher in self.watchers:
            watcher.attached(container, network, attachment, adopted=False)

    def adopt(self, container: Container) -> None:
        """Take note of the places of a container that ran before this daemon did.

        One that cannot be had is no reason for the engine not to come up: the container has it.
        """
        joined = []
        for name, endpoint in container.record.endpoints.items():
            network = self.networks.get(name)
            if network is None or network.attachment(container.id):
                continue
            if name not in (HOST, NONE) and not addresses_of(endpoint):
                continue
            try:
                attachment = network.adopt(
                    container.id,
                    addresses_of(endpoint),
                    endpoint.mac_address,
                    endpoint_id=endpoint.endpoint_id or None,
                    host_name=endpoint.host_port,
                    interface=endpoint.interface or "eth0",
                )
            except SampanError as error:
                log.error("container %s: its place in network %s: %s", container.id, name, error)
                continue
            name_it(container, network, attachment)
            joined.append((network, attachment))
        choose_routes(container, joined)
        for network, attachment in joined:
            for watcher in self.watchers:
                try:
                    watcher.attached(container, network, attachment, adopted=True)
                except SampanError as error:
                    log.error("container %s in network %s: %s", container.id, network.name, error)

    def disconnect(self, container: Container) -> None:
        """Take the addresses back. Idempotent."""
        for network, attachment in self.attachments(container):
            self.release(container, network, attachment)
        container.record.endpoints = {
            name: Endpoint(network=name, network_id=endpoint.network_id)
            for name, endpoint in container.record.endpoints.items()
        }

    def release(self, container: Container, network: Network, attachment: Attachment) -> None:
        """Take one place back, and tell the watchers."""
        for watcher in self.watchers:
            watcher.detached(container, network, attachment)
        network.release(container.id)

    def renamed(self, container: Container) -> None:
        """The container has another name: tell those who know it by name."""
        attachments = self.attachments(container)
        for network, attachment in attachments:
            name_it(container, network, attachment)
        if attachments:
            for watcher in self.watchers:
                watcher.renamed(container)

    def settings(self, container: Container) -> dict[str, Any]:
        """Docker's `NetworkSettings` of the container."""
        networks = {}
        for name, endpoint in self._places(container).items():
            network = self.networks.get(name)
            wanted = wish_for(container, network) if network else NOTHING
            networks[name] = inspect.endpoint_settings(
                network.attachment(container.id) if network else None,
                network_id=endpoint.network_id,
                configured=msgspec.to_builtins(wanted) if wanted is not NOTHING else None,
            )
        pid = container.state.pid
        return inspect.network_settings(
            networks,
            sandbox_id=container.id if pid else "",
            sandbox_key=f"/proc/{pid}/ns/net" if pid else "",
            ports=bound_ports.shown(container) if pid and self.mode(container) != HOST else None,
        )

    def _places(self, container: Container) -> dict[str, Endpoint]:
        """By network; of a container that never ran the one that it will join, as dockerd's."""
        mode = self.mode(container)
        if container.record.endpoints or mode not in self.networks:
            return container.record.endpoints
        return {mode: Endpoint(network=mode)}

    def has_devices(self, container: Container) -> bool:
        """Whether it sees network devices that are not the machine's, its own or another's."""
        mode = self.mode(container)
        if mode.startswith("container:"):
            try:
                return self.has_devices(self._find(mode.partition(":")[2]))
            except NotFound:
                return True  # that one is gone, its network is not
        return mode not in (HOST, NONE)

    def namespace_path(self, container: Container) -> str | None:
        """The network namespace to join: None for a new one, an empty text for the host's.

        Raises:
            NotFound, Conflict: the other container is not there or does not run.
        """
        mode = self.mode(container)
        if mode == HOST:
            return ""
        kind, _, reference = mode.partition(":")
        if kind != "container":
            return None
        return f"/proc/{self.running(reference, container).state.pid}/ns/net"

    def running(self, reference: str, joining: Container) -> Container:
        """A container whose namespaces another one joins.

        Raises:
            NotFound, Conflict: it is not there or does not run; dockerd's texts.
        """
        other = self._find(reference)
        if other is joining:
            raise Conflict(f"cannot join own network: container {other.id}")
        if not other.state.running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return other

    def write_files(self, container: Container) -> list[tuple[str, str]]:
        """Write `hosts`, `hostname` and `resolv.conf`; return (source, target) to mount.

        Another container's network comes with its files.
        """
        mode = self.mode(container)
        kind, _, reference = mode.partition(":")
        directory = container.directory
        if kind == "container":
            directory = self.running(reference, container).directory
        else:
            _write_own_files(
                container,
                mode,
                self._host_gateway or self.bridge.gateway,
                embedded=self.asks_resolver(container),
                links=self.link_lines(container),
            )
        return [
            (f"{directory}/resolv.conf", "/etc/resolv.conf"),
            (f"{directory}/hostname", "/etc/hostname"),
            (f"{directory}/hosts", "/etc/hosts"),
        ]

    def use_resolver(self, container: Container) -> None:
        """Name the embedded resolver in the resolv.conf of a container that runs; not in one that was edited."""
        path = f"{container.directory}/resolv.conf"
        with open(path, encoding="utf-8", errors="replace") as file:
            present = file.read()
        if present == _resolv_conf(container, embedded=False):
            write_file(path, _resolv_conf(container, embedded=True).encode())


def normalised_mode(mode: str) -> str:
    """A network mode with Docker's two names for the default replaced."""
    return BRIDGE if mode in ("", "default") else mode


def planned_endpoints(
    mode: str, wishes: Mapping[str, EndpointConfig | None] | None = None
) -> dict[str, Endpoint]:
    """The networks of a container that has not been started, that of its mode first.

    A client that names others and leaves the mode to the engine does not want the default, too.
    """
    if mode.startswith("container:"):
        return {}
    names = [BRIDGE if name == "default" else name for name in wishes or {}]
    if mode != BRIDGE or not names:
        names.insert(0, mode)
    elif BRIDGE in names:
        names.insert(0, BRIDGE)
    return {name: Endpoint(network=name) for name in names}


def check_together(mode: str, names: Sequence[str]) -> None:
    """Refuse networks that a container cannot be in at once; dockerd's texts.

    Raises:
        InvalidArgument: host or none beside others.
    """
    if len(names) < 2:
        return
    if HOST in names or mode == HOST:
        raise InvalidArgument(
            "container cannot be disconnected from host network or connected to host network"
        )
    if NONE in names:
        raise InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )


def _resolv_conf(container: Container, *, embedded: bool) -> str:
    """The resolv.conf of a container with a network namespace of its own."""
    host = container.host_config
    dns, search, options = host.dns or (), host.dns_search or (), host.dns_options or ()
    if embedded:
        return files.embedded_resolv_conf_text(search=search, options=options)
    return files.resolv_conf_text(servers=dns, search=search, options=options)


def _write_own_files(
    container: Container, mode: str, host_gateway: str, *, embedded: bool, links: Sequence[str]
) -> None:
    host, record = container.host_config, container.record
    extra = host.extra_hosts or ()
    if mode == HOST:
        hosts = files.host_mode_hosts_text(extra_hosts=extra, host_gateway=host_gateway)
        resolv_conf = files.host_mode_resolv_conf_text(
            servers=host.dns or (), search=host.dns_search or (), options=host.dns_options or ()
        )
    else:
        hosts = files.hosts_text(
            hostname=record.hostname,
            domainname=record.config.domainname,
            addresses=[
                address
                for endpoint in record.endpoints.values()
                for address in (endpoint.address, endpoint.ipv6_address)
                if address
            ],
            extra_hosts=extra,
            host_gateway=host_gateway,
            links=links,
        )
        resolv_conf = _resolv_conf(container, embedded=embedded)
    for name, text in (
        ("hosts", hosts),
        ("hostname", files.hostname_text(record.hostname)),
        ("resolv.conf", resolv_conf),
    ):
        write_file(f"{container.directory}/{name}", text.encode())


def write_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a small file in place: a container that has it mounted goes on seeing it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
