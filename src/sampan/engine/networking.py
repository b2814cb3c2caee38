"""A container's networks: which it joins, its addresses, and the files that speak of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from sampan.engine.container import Container, Endpoint
from sampan.engine.model import EndpointConfig
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError, Unsupported
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


class Networking:
    """Attaches containers to the networks that there are: bridge, host, none, another's.

    `find` looks up the container of `container:REF`.
    """

    def __init__(self, bridge: BridgeNetwork, find: Callable[[str], Container]) -> None:
        self.bridge = bridge
        self.networks: dict[str, Network] = {
            network.name: network for network in (bridge, host_network(), none_network())
        }
        self._find = find
        self.watchers: list[EndpointWatcher] = []

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
        """Give the container its addresses; the runtime makes the interfaces.

        A network that does not exist is noticed here and not at create, as in dockerd: clients
        take a 404 of create for a missing image.

        Raises:
            NotFound: there is no such network.
            Unavailable: no address is left.
            InvalidArgument, Conflict: a MAC or address that cannot be had.
        """
        mode = self.mode(container)
        container.record.endpoints = {}
        if mode.startswith("container:"):
            return []
        network = self.networks.get(mode)
        if network is None:
            raise NotFound(f"network {mode} not found")
        self._check_others(container, network.name)
        wanted = _configured(container, network.name)
        if wanted is not None:
            _check_wishes(wanted, network.name)
        mac = container.config.mac_address or (wanted.mac_address if wanted else "")
        attachment = network.attach(container.id, mac=mac or None)
        container.record.endpoints = {network.name: _endpoint(attachment)}
        return [attachment.endpoint] if attachment.endpoint else []

    def _check_others(self, container: Container, joined: str) -> None:
        """Refuse wishes for networks that the container does not join.

        Raises:
            NotFound: there is no such network; dockerd's text.
            Unsupported: more networks than one.
        """
        known = {joined, container.host_config.network_mode, "default"}
        for name in container.record.networking.endpoints_config or {}:
            if name in known:
                continue
            if name in self.networks:
                raise Unsupported(
                    f"a second network is not built yet: {name} beside {joined}",
                    hint="name it with --network alone",
                )
            raise NotFound(f"network {name} not found")

    def adopt(self, container: Container) -> None:
        """Take note of the addresses of a container that ran before this daemon did."""
        for name, endpoint in container.record.endpoints.items():
            if name == BRIDGE:
                self._adopt_address(container, endpoint)
            elif name in self.networks and not self.networks[name].attachment(container.id):
                self.networks[name].attach(container.id)

    def _adopt_address(self, container: Container, endpoint: Endpoint) -> None:
        """One that cannot be had is no reason for the engine not to come up: the container has it."""
        if not endpoint.address:
            return
        try:
            self.bridge.adopt(
                container.id,
                f"{endpoint.address}/{endpoint.prefix_length}",
                endpoint.mac_address,
                endpoint_id=endpoint.endpoint_id,
            )
        except SampanError as error:
            log.error("container %s: its address: %s", container.id, error)

    def disconnect(self, container: Container) -> None:
        """Take the addresses back. Idempotent."""
        for network in self.networks.values():
            network.release(container.id)
        container.record.endpoints = {
            name: Endpoint(network=name, network_id=endpoint.network_id)
            for name, endpoint in container.record.endpoints.items()
        }

    def settings(self, container: Container) -> dict[str, Any]:
        """Docker's `NetworkSettings` of the container."""
        networks = {}
        for name, endpoint in self._places(container).items():
            wanted = _configured(container, name)
            networks[name] = inspect.endpoint_settings(
                self.networks[name].attachment(container.id) if name in self.networks else None,
                network_id=endpoint.network_id,
                configured=msgspec.to_builtins(wanted) if wanted else None,
            )
        pid = container.state.pid
        return inspect.network_settings(
            networks,
            sandbox_id=container.id if pid else "",
            sandbox_key=f"/proc/{pid}/ns/net" if pid else "",
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
            _write_own_files(container, mode, self.bridge)
        return [
            (f"{directory}/resolv.conf", "/etc/resolv.conf"),
            (f"{directory}/hostname", "/etc/hostname"),
            (f"{directory}/hosts", "/etc/hosts"),
        ]


def normalised_mode(mode: str) -> str:
    """A network mode with Docker's two names for the default replaced."""
    return BRIDGE if mode in ("", "default") else mode


def planned_endpoints(mode: str) -> dict[str, Endpoint]:
    """The networks of a container that has not been started."""
    return {} if mode.startswith("container:") else {mode: Endpoint(network=mode)}


def _configured(container: Container, network: str) -> EndpointConfig | None:
    """What the user set for a network; clients name the default one as they do in NetworkMode."""
    asked = container.record.networking.endpoints_config or {}
    return asked.get(network) or asked.get(container.host_config.network_mode)


def _check_wishes(wanted: EndpointConfig, network: str) -> None:
    """Refuse what the networks that there are do not do; dockerd passes over the last two in silence.

    Raises:
        InvalidArgument: dockerd's texts.
        Unsupported: links and options of drivers.
    """
    if wanted.aliases:
        raise InvalidArgument(
            "network-scoped alias is supported only for containers in user defined networks"
        )
    addresses = wanted.ipam_config
    if addresses and (addresses.ipv4_address or addresses.ipv6_address or addresses.link_local_ips):
        raise InvalidArgument(
            "user specified IP address is supported on user defined networks only"
        )
    for name, value in (("Links", wanted.links), ("DriverOpts", wanted.driver_opts)):
        if value:
            raise Unsupported(f"EndpointsConfig.{network}.{name} is not built yet")


def _endpoint(attachment: Attachment) -> Endpoint:
    endpoint = Endpoint(
        network=attachment.network_name,
        network_id=attachment.network_id,
        endpoint_id=attachment.endpoint_id,
    )
    if (veth := attachment.endpoint) is not None:
        endpoint.address, _, prefix = veth.addresses[0].partition("/")
        endpoint.prefix_length = int(prefix)
        endpoint.gateway, endpoint.mac_address = veth.gateway, veth.mac
    return endpoint


def _write_own_files(container: Container, mode: str, bridge: BridgeNetwork) -> None:
    host, record = container.host_config, container.record
    dns, search, options = host.dns or (), host.dns_search or (), host.dns_options or ()
    extra = host.extra_hosts or ()
    if mode == HOST:
        hosts = files.host_mode_hosts_text(extra_hosts=extra, host_gateway=bridge.gateway)
        resolv_conf = files.host_mode_resolv_conf_text(servers=dns, search=search, options=options)
    else:
        hosts = files.hosts_text(
            hostname=record.hostname,
            domainname=record.config.domainname,
            addresses=[e.address for e in record.endpoints.values() if e.address],
            extra_hosts=extra,
            host_gateway=bridge.gateway,
        )
        resolv_conf = files.resolv_conf_text(servers=dns, search=search, options=options)
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
