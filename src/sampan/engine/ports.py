"""Published ports: taken, translated and given back as containers come, change and go.

A watcher of endpoints: what a container publishes leads to its address in the network of its default
route. Which ports of the host those are is in its record, so that a later daemon finds them again; the
rules themselves are the kernel's (`network.published`) and need no daemon.

In a network with the gateway mode `routed` nothing of the host's is taken: a published port is one that
others reach by the container's own address. Its number on the host is 0 then.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sampan.engine.container import BoundPort, Container
from sampan.engine.port_wishes import PortWish, port_wishes
from sampan.errors import InvalidArgument, RuntimeFailure, SampanError
from sampan.linux.netlink import let_turn_back
from sampan.linux.nftables import NftError
from sampan.linux.rtnetlink import transact
from sampan.network.firewall import OpenPort
from sampan.network.ports import HeldPort, HostPorts
from sampan.network.published import PublishedRules, bridged_packets_are_filtered
from sampan.network.published_tables import Forward

if TYPE_CHECKING:
    from sampan.engine.networking import Networking
    from sampan.network.driver import Attachment, Network

log = logging.getLogger(__name__)

_BRIDGE = "bridge"  # the one driver whose containers are behind the host


class _Place:
    """Where a container's ports lead to, and what it has published."""

    __slots__ = ("address", "address6", "forwards", "held", "network")

    def __init__(self, network: Network, address: str, address6: str) -> None:
        self.network = network
        self.address = address
        self.address6 = address6
        self.held: list[HeldPort] = []
        self.forwards: list[Forward | OpenPort] = []

    def is_routed(self, *, ipv6: bool) -> bool:
        """Whether its containers are reached by their own addresses only."""
        options = getattr(self.network, "options", None)
        mode = getattr(options, "gateway_mode6" if ipv6 else "gateway_mode", "")
        return bool(mode == "routed")


class Ports:
    """The published ports of one engine. An `EndpointWatcher`."""

    def __init__(self, networking: Networking, rules: PublishedRules, *, address: str = "") -> None:
        self._networking = networking
        self._rules = rules
        self._firewall = networking.bridge.firewall
        self._firewall.published = rules
        self._default_address = address
        self._ports = HostPorts()
        self._places: dict[str, _Place] = {}

    def open(self) -> None:
        """Take over the rules of a former daemon, before its containers are adopted; blocks for
        milliseconds."""
        bridges = {
            bridge
            for network in self._networking.networks.values()
            if network.driver == _BRIDGE and (bridge := getattr(network, "bridge", ""))
        }
        self._rules.open(bridges)

    def settle(self) -> None:
        """All containers that run are known: ports of others go."""
        self._rules.settle()

    def close(self) -> None:
        """Let go; published ports go on."""
        self._ports.close()
        self._rules.close()

    # EndpointWatcher

    def attached(
        self, container: Container, network: Network, attachment: Attachment, *, adopted: bool
    ) -> None:
        """Publish the container's ports when its network for them is there.

        Raises:
            RuntimeFailure: a port is taken; dockerd's text.
        """
        if adopted:
            if container.record.ports:
                self._adopt(container)
            return
        host = container.host_config
        if host.port_bindings or host.publish_all_ports:
            self._lead(container)

    def detached(self, container: Container, network: Network, attachment: Attachment) -> None:
        """Take back what leads into that network."""
        place = self._places.get(container.id)
        if place is not None and place.network is network:
            self._withdraw(container.id)
            container.record.ports = []

    def rerouted(self, container: Container) -> None:
        """Ports follow the default route."""
        if container.host_config.port_bindings or container.host_config.publish_all_ports:
            try:
                self._lead(container)
            except SampanError as error:
                log.error("container %s: its ports: %s", container.id, error)

    def renamed(self, container: Container) -> None:
        """Names mean nothing here."""

    # Live changes

    def change(self, container: Container, wishes: Sequence[PortWish]) -> None:
        """Make a running container publish exactly this; what it has published already stays.

        Raises:
            RuntimeFailure: a port is taken, and nothing has changed.
        """
        place = self._places.get(container.id)
        if place is None:
            found = self._target(container)
            if found is None:
                raise InvalidArgument(
                    f"container {container.id} is in no network whose ports can be published"
                )
            place = _Place(*found)
        kept, missing = _compare(container.record.ports, wishes)
        held, forwards, bound = self._take(container, place, missing)
        staying = set(kept)
        leaving = [port for port in container.record.ports if port not in staying]
        self._give_back(place, leaving)
        place.held += held
        place.forwards += forwards
        container.record.ports = [*kept, *bound]
        self._places[container.id] = place
        if place.held:
            self._let_turn_back(container, place)

    # Inside

    def _lead(self, container: Container) -> None:
        """Publish, or move what is published, to where the default route leads now."""
        found = self._target(container)
        place = self._places.get(container.id)
        if place is not None:
            if found is not None and (place.network, place.address, place.address6) == found:
                return
            self._withdraw(container.id)
            container.record.ports = []
        if found is None:
            return
        place = _Place(*found)
        wishes = port_wishes(container.config, container.host_config)
        place.held, place.forwards, container.record.ports = self._take(container, place, wishes)
        self._places[container.id] = place
        self._let_turn_back(container, place)

    def _let_turn_back(self, container: Container, place: _Place) -> None:
        """Let the container call itself by the host's address, where the kernel asks the packet filter
        about frames between ports of a bridge."""
        if not bridged_packets_are_filtered():
            return
        for network, attachment in self._networking.attachments(container):
            end = attachment.endpoint
            if network is not place.network or end is None or end.hairpin:
                continue
            end.hairpin = True
            if container.state.running:
                try:
                    transact([let_turn_back(end.host_name)])
                except OSError as error:
                    log.warning(
                        "container %s: interface %s: %s", container.id, end.host_name, error
                    )

    def _target(self, container: Container) -> tuple[Network, str, str] | None:
        """The network of the default route, and the container's addresses in it."""
        candidates = [
            (network, attachment)
            for network, attachment in self._networking.attachments(container)
            if network.driver == _BRIDGE
            and attachment.endpoint is not None
            and not getattr(network, "internal", False)
        ]
        candidates.sort(
            key=lambda pair: (
                not (pair[1].endpoint and (pair[1].endpoint.gateway or pair[1].endpoint.gateway6))
            )
        )
        if not candidates:
            return None
        network, attachment = candidates[0]
        return network, attachment.address, attachment.address6

    def _take(
        self, container: Container, place: _Place, wishes: Sequence[PortWish]
    ) -> tuple[list[HeldPort], list[Forward | OpenPort], list[BoundPort]]:
        """Take the ports and lead them to the place; all of them, or none and it raises."""
        held: list[HeldPort] = []
        forwards: list[Forward | OpenPort] = []
        bound: list[BoundPort] = []
        try:
            for wish in wishes:
                for port in self._hold(place, wish):
                    forward = _forward(place, port, wish.port)
                    if not port.number and forward in (*place.forwards, *forwards):
                        continue  # open already, whatever numbers of the host are asked for
                    held.append(port)
                    forwards.append(forward)
                    bound.append(
                        BoundPort(
                            protocol=wish.protocol,
                            port=wish.port,
                            host_address=port.address,
                            host_port=port.number,
                        )
                    )
            self._open(place, forwards)
        except (SampanError, OSError) as error:
            for port in held:
                self._ports.release(port)
            raise self._failure(container, place, error) from error
        return held, forwards, bound

    def _hold(self, place: _Place, wish: PortWish) -> list[HeldPort]:
        """The ports for one wish: of IPv4 and IPv6, as far as the container has them."""
        wanted = [
            wildcard
            for wildcard, own in (("0.0.0.0", place.address), ("::", place.address6))
            if own and (not wish.address or (":" in wish.address) == (":" in wildcard))
        ]
        routed = [each for each in wanted if place.is_routed(ipv6=":" in each)]
        if not routed:
            return self._hold_of_host(place, wish)
        return [
            *(HeldPort(wish.protocol, each, 0, None) for each in routed),
            *(
                self._ports.take(wish.protocol, each, wish.numbers)
                for each in wanted
                if each not in routed
            ),
        ]

    def _hold_of_host(self, place: _Place, wish: PortWish) -> list[HeldPort]:
        address = wish.address or self._host_binding(place.network)
        if not address and place.address and place.address6:
            return self._ports.take_both(wish.protocol, wish.numbers)
        if not address:
            address = "0.0.0.0" if place.address else "::"
        if (":" in address and not place.address6) or (":" not in address and not place.address):
            kind = "IPv6" if ":" in address else "IPv4"
            raise InvalidArgument(
                f"cannot publish at {address}: the container has no {kind} address in network "
                f"{place.network.name}"
            )
        return [self._ports.take(wish.protocol, address, wish.numbers)]

    def _host_binding(self, network: Network) -> str:
        options = getattr(network, "options", None)
        address = getattr(options, "host_binding", "") or self._default_address
        return "" if address == "0.0.0.0" else str(address)

    def _adopt(self, container: Container) -> None:
        """Hold the ports that a former daemon published; the rules are the kernel's already."""
        found = self._target(container)
        if found is None or container.id in self._places:
            return
        place = _Place(*found)
        for bound in container.record.ports:
            if not bound.host_port:
                held = HeldPort(bound.protocol, bound.host_address, 0, None)
                place.held.append(held)
                place.forwards.append(_forward(place, held, bound.port))
                continue
            try:
                held = self._ports.take(
                    bound.protocol, bound.host_address, (bound.host_port,), adopted=True
                )
            except SampanError as error:
                log.error("container %s: its port %s: %s", container.id, bound.host_port, error)
                continue
            place.held.append(held)
            place.forwards.append(_forward(place, held, bound.port))
        try:
            self._open(place, place.forwards)
        except (NftError, OSError) as error:
            log.error("container %s: its ports: %s", container.id, error)
        self._places[container.id] = place

    def _give_back(self, place: _Place, leaving: Sequence[BoundPort]) -> None:
        gone = {(port.protocol, port.host_address, port.host_port, port.port) for port in leaving}
        for index in range(len(place.held) - 1, -1, -1):
            held = place.held[index]
            port = place.forwards[index].port
            if (held.protocol, held.address, held.number, port) in gone:
                self._shut([place.forwards[index]])
                self._ports.release(held)
                del place.held[index], place.forwards[index]

    def _withdraw(self, identity: str) -> None:
        place = self._places.pop(identity)
        self._shut(place.forwards)
        for held in place.held:
            self._ports.release(held)

    def _open(self, place: _Place, forwards: Sequence[Forward | OpenPort]) -> None:
        """All of them, or none and it raises."""
        self._rules.add_bridge(getattr(place.network, "bridge", ""))
        self._rules.add([each for each in forwards if isinstance(each, Forward)])
        try:
            self._firewall.open_ports([each for each in forwards if isinstance(each, OpenPort)])
        except NftError:
            self._rules.drop([each for each in forwards if isinstance(each, Forward)])
            raise

    def _shut(self, forwards: Sequence[Forward | OpenPort]) -> None:
        self._rules.drop([each for each in forwards if isinstance(each, Forward)])
        self._firewall.close_ports([each for each in forwards if isinstance(each, OpenPort)])

    def _failure(self, container: Container, place: _Place, error: Exception) -> RuntimeFailure:
        reason = error.message if isinstance(error, SampanError) else str(error)
        endpoint = place.network.attachment(container.id)
        return RuntimeFailure(
            "network",
            f"driver failed programming external connectivity on endpoint {container.name} "
            f"({endpoint.endpoint_id if endpoint else ''}): {reason}",
        )


def _forward(place: _Place, held: HeldPort, port: int) -> Forward | OpenPort:
    ipv6 = ":" in held.address
    if not held.number:
        return OpenPort(place.address6 if ipv6 else place.address, held.protocol, port)
    return Forward(
        held.protocol,
        "" if held.wildcard else held.address,
        held.number,
        place.address6 if ipv6 else place.address,
        port,
    )


def _compare(
    bound: Sequence[BoundPort], wishes: Sequence[PortWish]
) -> tuple[list[BoundPort], list[PortWish]]:
    """(what stays published, what is missing)."""
    kept: list[BoundPort] = []
    missing = []
    left: dict[tuple[str, int], list[BoundPort]] = {}
    for port in bound:
        left.setdefault((port.protocol, port.port), []).append(port)
    for wish in wishes:
        alike = left.get((wish.protocol, wish.port), [])
        fitting = [port for port in alike if _fits(port, wish)]
        if not fitting:
            missing.append(wish)
            continue
        # One wish is a port of IPv4 and one of IPv6, with the same number.
        chosen = [port for port in fitting if port.host_port == fitting[0].host_port]
        kept += chosen
        left[wish.protocol, wish.port] = [port for port in alike if port not in chosen]
    return kept, missing


def _fits(bound: BoundPort, wish: PortWish) -> bool:
    """Whether a published port is what is wished for, of the same port of the container."""
    if not bound.host_port:
        return True
    any_address = not wish.address and bound.host_address in ("0.0.0.0", "::")
    return (any_address or bound.host_address == wish.address) and (
        not wish.numbers.start or bound.host_port in wish.numbers
    )
