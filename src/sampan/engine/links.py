"""Links of the default bridge network (`--link NAME[:ALIAS]`), which finds no names by itself.

A container that is linked to another finds its address in `hosts` and in environment variables, and
reaches the ports that it exposes also where containers on the bridge do not reach each other. On
networks of the user's own a link is a name more, which is the resolver's business.

The record keeps links as `ID:ALIAS`; texts and variables are dockerd's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sampan.engine import network_files
from sampan.engine.endpoint_wishes import parse_link
from sampan.engine.networking import BRIDGE, HOST, normalised_mode
from sampan.engine.port_wishes import container_port
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError
from sampan.network.firewall import Opening

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.model import HostConfig
    from sampan.engine.networking import Networking
    from sampan.engine.registry import Registry
    from sampan.network.driver import Attachment, Network

_NOT_PASSED_ON = ("HOME", "PATH")
_CONFLICT = (
    "conflicting options: {} type networking can't be used with links. This would result in "
    "undefined behavior"
)


class Link(NamedTuple):
    """Another container, and what it is called here."""

    child: Container
    alias: str


class Links:
    """An `EndpointWatcher` that knows who is linked to whom."""

    def __init__(self, registry: Registry, networking: Networking) -> None:
        self._registry = registry
        self._bridge = networking.bridge
        # Linked container → those that may be linked to it; more than there are, at worst.
        self._parents: dict[str, set[str]] = {}
        self._openings: dict[str, set[Opening]] = {}  # by the container that is linked

    def open(self) -> None:
        """Take note of the links of containers that there are, all of which are known now."""
        for container in self._registry:
            for link in self.of(container):
                self._parents.setdefault(link.child.id, set()).add(container.id)
            if container.state.running:
                self._let_through(container)

    def resolve(self, identity: str, host: HostConfig) -> None:
        """Look up the containers that a new one, of this ID, is to be linked to.

        Raises:
            InvalidArgument: there is no such container, or its network knows no links.
            Conflict: one name for two.
        """
        mode = normalised_mode(host.network_mode)
        if not host.links:
            return
        if mode == HOST or mode.startswith("container:"):
            raise InvalidArgument(_CONFLICT.format(mode.partition(":")[0]))
        if mode != BRIDGE:
            return
        found: dict[str, str] = {}
        for text in host.links:
            child, alias = self._found(text)
            if found.setdefault(alias, child.id) != child.id:
                raise Conflict(f"conflicting links: {alias} is {found[alias]} and {child.id}")
            self._parents.setdefault(child.id, set()).add(identity)
        host.links = [f"{child}:{alias}" for alias, child in found.items()]

    def of(self, container: Container) -> list[Link]:
        """The container's links on the default bridge, by what they are called."""
        host = container.host_config
        if not host.links or normalised_mode(host.network_mode) != BRIDGE:
            return []
        found = []
        for text in host.links:
            child, _, alias = text.partition(":")
            if self._registry.has_id(child):
                found.append(Link(self._registry.find(child), alias))
        return sorted(found, key=lambda link: link.alias)

    def shown(self, container: Container) -> list[str] | None:
        """`HostConfig.Links` of inspect."""
        host = container.host_config
        if normalised_mode(host.network_mode) != BRIDGE:
            return host.links
        links = self.of(container)
        return [f"/{child.name}:/{container.name}/{alias}" for child, alias in links] or None

    def paths(self) -> Mapping[str, list[str]]:
        """What containers are called by those that are linked to them (`/web/db`), by their IDs."""
        found: dict[str, list[str]] = {}
        for container in self._registry:
            for child, alias in self.of(container):
                found.setdefault(child.id, []).append(f"/{container.name}/{alias}")
        return found

    def remove(self, path: str) -> None:
        """Take away the link of that path: container and what it calls the other.

        Raises:
            NotFound: there is none; Conflict: it is a container's own name.
        """
        name, _, alias = path.strip("/").rpartition("/")
        if not name:
            self._registry.find(alias)
            raise Conflict("Conflict, cannot remove the default link name of the container")
        container = self._registry.find(name) if name in self._registry else None
        link = (
            next((link for link in self.of(container) if link.alias == alias), None)
            if container
            else None
        )
        if container is None or link is None:
            raise NotFound(f"No such container: {path.strip('/')}")
        former = container.host_config.links or []
        container.host_config.links = [
            text for text in former if text != f"{link.child.id}:{alias}"
        ] or None
        try:
            self._registry.write(container)
        except BaseException:
            container.host_config.links = former
            raise
        if container.state.running:
            self._let_through(container)

    def environment(self, container: Container) -> list[str]:
        """The variables that tell of the linked containers, all of which run."""
        found = []
        for child, alias in self.of(container):
            attachment = self._bridge.attachment(child.id)
            if attachment is not None:
                path = f"/{container.name}/{alias}"
                found += variables(path, attachment.address, _ports(child), child.config.env)
        return found

    def hosts(self, container: Container) -> list[str]:
        """The lines of `hosts` that name the linked containers."""
        found = []
        for child, alias in self.of(container):
            attachment = self._bridge.attachment(child.id)
            if attachment is None:
                continue
            names = dict.fromkeys((alias, child.record.hostname, child.name))
            for address in (attachment.address, attachment.address6):
                if address:
                    found.append(f"{address}\t{' '.join(names)}\n")
        return found

    # EndpointWatcher

    def attached(
        self, container: Container, network: Network, attachment: Attachment, *, adopted: bool
    ) -> None:
        """Tell it and those that are linked to it where the other is.

        Raises:
            SampanError: one that it is linked to does not run.
        """
        if adopted or network is not self._bridge:
            return
        for child, alias in self.of(container):
            if not child.state.counts_as_running:
                raise SampanError(
                    f"Cannot link to a non running container: /{child.name} AS "
                    f"/{container.name}/{alias}"
                )
            if self._bridge.attachment(child.id) is None:
                raise SampanError(
                    f"Cannot link to /{child.name}, as it does not belong to the default network"
                )
        self._let_through(container)
        for parent, alias in self._linked_to(container):
            network_files.move_name(parent, alias, attachment)
            self._let_through(parent)

    def detached(self, container: Container, network: Network, attachment: Attachment) -> None:
        """What it was let through to is closed."""
        if network is self._bridge:
            self._bridge.firewall.unlink(self._openings.pop(container.id, ()))

    def rerouted(self, container: Container) -> None:
        """Nothing to do: links know addresses, not routes."""

    def renamed(self, container: Container) -> None:
        """Nothing to do: links know containers by their IDs."""

    def _found(self, text: str) -> Link:
        if not text or text.count(":") > 1:
            problem = (
                f"bad format for links: {text}" if text else "empty string specified for links"
            )
            raise InvalidArgument(problem)
        name, alias = parse_link(text)
        try:
            child = self._registry.find(name)
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {name}: {error.message}") from error
        if normalised_mode(child.host_config.network_mode) == HOST:
            raise InvalidArgument(_CONFLICT.format(HOST))
        return Link(child, alias)

    def _linked_to(self, child: Container) -> Iterator[tuple[Container, str]]:
        """The running containers that are linked to it, and what they call it."""
        for identity in self._parents.get(child.id, ()):
            if not self._registry.has_id(identity):
                continue
            parent = self._registry.find(identity)
            for link in self.of(parent):
                if link.child is child and parent.state.running:
                    yield parent, link.alias

    def _let_through(self, container: Container) -> None:
        """Let it reach the exposed ports of those it is linked to, where the bridge keeps all apart."""
        own = self._bridge.attachment(container.id)
        if self._bridge.icc or own is None:
            return
        wanted = {
            Opening(own.address, attachment.address, protocol, port)
            for child, _ in self.of(container)
            if (attachment := self._bridge.attachment(child.id)) is not None
            for port, protocol in _ports(child)
        }
        former = self._openings.get(container.id, set())
        self._bridge.firewall.unlink(former - wanted)
        if wanted - former:
            self._bridge.answer_for_neighbours()
            self._bridge.firewall.link(wanted - former)
        self._openings[container.id] = wanted


def _ports(container: Container) -> list[tuple[int, str]]:
    """The exposed ports by number, tcp before others."""
    found = map(container_port, container.config.exposed_ports or {})
    return sorted(found, key=lambda port: (port[0], port[1] != "tcp", port[1]))


def variables(
    path: str, address: str, ports: Sequence[tuple[int, str]], environment: Iterable[str]
) -> list[str]:
    """The environment variables of a link; `ports` are in order, `environment` is the other's own."""
    alias = path.rpartition("/")[2].upper().replace("-", "_")
    found = []
    if ports:
        found.append(f"{alias}_PORT={_url(address, *ports[0])}")
    index = 0
    while index < len(ports):
        last = _end_of_range(ports, index)
        if last <= index + 1:
            index += 1
            continue
        start = f"{alias}_PORT_{ports[index][0]}_{ports[index][1].upper()}"
        end = f"{alias}_PORT_{ports[index][0]}_{ports[last][1].upper()}"
        found += [
            f"{start}_START={_url(address, *ports[index])}",
            f"{start}_PORT_START={ports[index][0]}",
            f"{end}_END={_url(address, *ports[last])}",
            f"{end}_PORT_END={ports[last][0]}",
        ]
        index = last + 1
    for port, protocol in ports:
        name = f"{alias}_PORT_{port}_{protocol.upper()}"
        found += [
            f"{name}={_url(address, port, protocol)}",
            f"{name}_ADDR={address}",
            f"{name}_PORT={port}",
            f"{name}_PROTO={protocol}",
        ]
    found.append(f"{alias}_NAME={path}")
    for entry in environment:
        key, equals, _ = entry.partition("=")
        if equals and key not in _NOT_PASSED_ON:
            found.append(f"{alias}_ENV_{entry}")
    return found


def _url(address: str, port: int, protocol: str) -> str:
    return f"{protocol}://{address}:{port}"


def _end_of_range(ports: Sequence[tuple[int, str]], index: int) -> int:
    """The place of the last port that follows on those from `index` on, counted as dockerd does."""
    value = ports[index][0]
    for place in range(index + 1, len(ports)):
        if ports[place][0] > value + 1:
            return place - 1
        value += 1
    return len(ports) - 1
