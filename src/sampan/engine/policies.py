"""Egress policies and rate limits of containers: from what was asked for to what the kernel holds.

    --annotation sampan.network-policy=allow:pypi.org,10.1.0.0/16      none, full, or a list
    --annotation sampan.net-rate=in=10mbit,out=5mbit

A network may have a policy, too; both have to allow then. A policy is in force before the container's
first process runs, and a change of it before `update` answers; open connections that the change forbids
are cut. Rates are set as soon as the interface is there. All of it outlives the daemon.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from sampan.engine.container import Container
from sampan.engine.networking import HOST, NONE, Networking, normalised_mode
from sampan.engine.terms import NETWORK_POLICY, PREFIXES, Terms
from sampan.errors import InvalidArgument, RuntimeFailure, Unavailable, Unsupported
from sampan.linux import conntrack, interfaces, traffic
from sampan.linux.netlink import delete_link
from sampan.linux.nftables import NftError
from sampan.linux.nftwatch import RulesetWatch
from sampan.network import policy as policies
from sampan.network.driver import Attachment, Network
from sampan.network.egress import Denied, Egress
from sampan.network.egress_rules import GuardedPort
from sampan.network.policy import NetworkPolicy
from sampan.network.rate import Rate, parse_rate

log = logging.getLogger(__name__)

INTERFACE_WAIT_S = 5.0
_LOOK_AGAIN_S = 0.02
_DEVICE_ALIAS = "sampan rate"

parse_policy = lru_cache(256)(policies.parse_policy)


class Policies:
    """What containers may reach and how fast, over one engine's networks.

    An `EndpointWatcher` and a `Watcher` of lives. `of_network` gives the policy of a network, empty for
    none; `tell` is told of containers whose policy changes while they run, `told` waits until that is
    done, and `refused_names` is asked for [name, how often, when last] of those that a running container
    asked for in vain: the resolver's.
    """

    def __init__(self, networking: Networking, egress: Egress) -> None:
        self._networking = networking
        self._egress = egress
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: RulesetWatch | None = None
        self._containers: dict[str, Container] = {}  # that have a policy now
        self.of_network: Callable[[Network], str] = lambda _: ""
        self.tell: Callable[[Container], None] = lambda _: None
        self.told: Callable[[], Awaitable[None]] = _at_once
        self.refused_names: Callable[[Container], Awaitable[list[Any]]] = _none_refused

    def open(self) -> None:
        """Take note of what guards containers already; blocks for some milliseconds."""
        self._egress.adopt()

    def settle(self) -> None:
        """All containers that run have been found: what guards others goes."""
        try:
            self._egress.settle()
        except NftError as error:
            log.error("rules of policies of former containers: %s", error.message)
        wanted = {_device(port) for port in self._limited()}
        for link in interfaces.links():
            if link.kind == "ifb" and link.alias == self._alias and link.name not in wanted:
                delete_link(link.name)

    async def close(self) -> None:
        """Let go of the kernel; what is in force stays."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._unwatch()
        self._egress.close()

    def document(self, container: Container) -> dict[str, Any] | None:
        """The container's policy as the resolver is to know it; None for none."""
        ports = [
            attachment.host_port
            for _, attachment in self._networking.attachments(container)
            if attachment.host_port in self._egress.ports
        ]
        return self._egress.document(ports) if ports else None

    # Endpoints

    def attached(
        self, container: Container, network: Network, attachment: Attachment, *, adopted: bool
    ) -> None:
        """Put its policies in force for this interface."""
        self._guard(container, network, attachment, container.record.terms)
        if container.state.running and not adopted and container.record.terms.net_rate:
            self._own(self._limit_when_there(container, attachment))

    def detached(self, container: Container, network: Network, attachment: Attachment) -> None:
        """Forget the interface; what was refused there is kept with the container."""
        port = attachment.host_port
        if port in self._egress.ports:
            try:
                self._note_denied(container, self._egress.denied(port))
                self._egress.drop([port])
            except (NftError, OSError) as error:
                log.error("container %s: its network policy: %s", container.id, error)
            self._forget(container)
        if port and container.record.terms.net_rate:
            self._own(_without_device(_device(port)))

    def rerouted(self, container: Container) -> None:
        """A policy is the same whichever way the default route leads."""

    def renamed(self, container: Container) -> None:
        """A policy is the container's, whatever its name."""

    # Lives

    def running(self, container: Container) -> None:
        """Its interfaces are there."""
        rate = parse_rate(container.record.terms.net_rate)
        if not rate:
            return
        for _, attachment in self._networking.attachments(container):
            try:
                self._limit(attachment, rate)
            except OSError as error:
                if error.errno != errno.ENODEV:  # else it has ended already
                    log.error("container %s: its network rate: %s", container.id, error)

    def halted(self, container: Container) -> None:
        """Limits go with the interfaces."""

    # Changes and questions

    async def change(self, container: Container, before: Terms, after: Terms) -> None:
        """Put other terms in force for a container that may run; open connections that they forbid end.

        Raises:
            Unsupported: they cannot be enforced in one of its networks.
            RuntimeFailure: the kernel refused.
        """
        if not container.state.running:
            return
        attachments = self._networking.attachments(container)
        if after.network_policy != before.network_policy:
            for network, attachment in attachments:
                self._guard(container, network, attachment, after)
            self.tell(container)
            await self.told()
            for _, attachment in attachments:
                await asyncio.to_thread(self._cut, attachment)
        if after.net_rate != before.net_rate:
            rate = parse_rate(after.net_rate)
            try:
                for _, attachment in attachments:
                    await asyncio.to_thread(self._limit, attachment, rate)
            except OSError as error:
                raise RuntimeFailure(
                    "network", f"the network rate cannot be set: {error}"
                ) from error

    async def enforce(self, container: Container, network: Network) -> None:
        """Put the policy that the network has now in force for a container that may be in it.

        Raises:
            Unsupported, RuntimeFailure: as of `change`.
        """
        attachment = network.attachment(container.id)
        if attachment is None:
            return
        self._guard(container, network, attachment, container.record.terms)
        if container.state.running:
            self.tell(container)
            await self.told()
            await asyncio.to_thread(self._cut, attachment)

    async def denied(self, container: Container) -> list[Denied]:
        """What was refused so far, in this run and the one before."""
        found = _past_denied(container)
        for _, attachment in self._networking.attachments(container):
            try:
                found += await asyncio.to_thread(self._egress.denied, attachment.host_port)
            except NftError as error:
                raise Unavailable(f"refused packets cannot be counted: {error.message}") from error
        if container.id in self._containers:
            found += _of_names(await self.refused_names(container))
        return _summed(found)

    # Guarding

    def _guard(
        self, container: Container, network: Network, attachment: Attachment, terms: Terms
    ) -> None:
        texts = [text for text in (terms.network_policy, self.of_network(network)) if text]
        wanted = [policy for policy in map(parse_policy, texts) if not policy.is_full]
        port = attachment.host_port
        try:
            if wanted and _can_reach(network):
                self._egress.put([_guarded(network, attachment, tuple(wanted))])
                self._containers[container.id] = container
                self._watch_rules()
            elif port in self._egress.ports:
                self._egress.drop([port])
                self._forget(container)
        except NftError as error:
            raise RuntimeFailure(
                "network", f"the network policy cannot be put in force: {error.message}"
            ) from error

    def _forget(self, container: Container) -> None:
        if self.document(container) is None:
            self._containers.pop(container.id, None)
        if not self._egress.ports:
            self._unwatch()

    def _cut(self, attachment: Attachment) -> None:
        """End the connections that the container has opened and may not have any more."""
        if attachment.host_port not in self._egress.ports:
            return
        try:
            for address in filter(None, (attachment.address, attachment.address6)):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                opened = conntrack.opened_by(socket.inet_pton(family, address))
                allows = self._egress.allower(attachment.host_port)
                conntrack.forget(
                    each
                    for each in opened
                    if not allows(each.destination, each.protocol, each.port)
                )
        except OSError as error:
            raise RuntimeFailure("network", f"open connections cannot be cut: {error}") from error

    def _note_denied(self, container: Container, denied: list[Denied]) -> None:
        if denied:
            data = msgspec.json.encode(_summed([*_past_denied(container), *denied]))
            with open(_past_path(container), "wb") as file:
                file.write(data)

    # Somebody else changed the rules

    def _watch_rules(self) -> None:
        if self._watch is None:
            self._watch = RulesetWatch()
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._rules_changed)

    def _unwatch(self) -> None:
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _rules_changed(self) -> None:
        """At once: as long as the rules are gone, everything is allowed."""
        assert self._watch is not None
        if not self._watch.changed_by_others() or self._egress.intact():
            return
        log.warning("the rules of network policies were taken away: putting them back")
        try:
            self._egress.restore()
        except NftError as error:
            log.error("the rules of network policies cannot be put back: %s", error.message)
            return
        for container in self._containers.values():
            self.tell(container)

    # Rates

    def _limit(self, attachment: Attachment, rate: Rate) -> None:
        """What the host's end sends is what the container receives."""
        if not (port := attachment.host_port):
            return
        traffic.limit_sending(port, rate.in_bytes)
        traffic.limit_receiving(port, _device(port), rate.out_bytes, alias=self._alias)

    async def _limit_when_there(self, container: Container, attachment: Attachment) -> None:
        """The interface of a container that runs comes after its place in the network."""
        deadline = asyncio.get_running_loop().time() + INTERFACE_WAIT_S
        while container.state.running:
            try:
                self._limit(attachment, parse_rate(container.record.terms.net_rate))
                return
            except OSError as error:
                late = asyncio.get_running_loop().time() > deadline
                if error.errno != errno.ENODEV or late:
                    log.error("container %s: its network rate: %s", container.id, error)
                    return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _limited(self) -> Iterable[str]:
        for network in self._networking.networks.values():
            for attachment in network.attachments():
                if attachment.host_port:
                    yield attachment.host_port

    @property
    def _alias(self) -> str:
        return f"{_DEVICE_ALIAS} {self._egress.table}"

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def policy_among(*pairs: Mapping[str, str] | None) -> str:
    """The policy that options or labels of a network ask for, empty for none.

    Raises:
        InvalidArgument: it cannot be meant.
    """
    for given in pairs:
        for prefix in PREFIXES:
            if text := (given or {}).get(prefix + NETWORK_POLICY):
                return parse_policy(text).text
    return ""


def check_terms(terms: Terms, network_mode: str) -> None:
    """Refuse a policy or a rate for a network that is not the container's own.

    Raises:
        InvalidArgument: which.
    """
    mode = normalised_mode(network_mode)
    if mode != HOST and not mode.startswith("container:"):
        return
    for what, text in (("network policy", terms.network_policy), ("network rate", terms.net_rate)):
        if text:
            raise InvalidArgument(f"conflicting options: {what} and the network mode")


def _can_reach(network: Network) -> bool:
    return network.name != NONE


def _guarded(
    network: Network, attachment: Attachment, wanted: tuple[NetworkPolicy, ...]
) -> GuardedPort:
    bridge = getattr(network, "bridge", "")
    if not (attachment.host_port and bridge and attachment.endpoint):
        raise Unsupported(
            f"a network policy cannot be enforced in network {network.name}",
            hint="its containers' packets do not pass a port of the host; take a bridge network",
        )
    try:
        bridge_mac = interfaces.hardware_address(bridge)
    except OSError as error:
        raise RuntimeFailure(
            "network", f"bridge {bridge}: {os.strerror(error.errno or 0)}"
        ) from error
    return GuardedPort(
        host_port=attachment.host_port,
        mac=attachment.endpoint.mac,
        bridge_mac=bridge_mac,
        address=attachment.address,
        address6=attachment.address6,
        policies=wanted,
    )


def _device(host_port: str) -> str:
    """The device in which what comes from a port waits."""
    return f"ifb{host_port.removeprefix('veth')}"[:15]


async def _without_device(name: str) -> None:
    try:
        await asyncio.to_thread(delete_link, name)
    except OSError as error:
        log.error("device %s: %s", name, error)


async def _at_once() -> None:
    """Nobody has to be waited for."""


async def _none_refused(_: Container) -> list[Any]:
    return []


def _of_names(refused: list[Any]) -> list[Denied]:
    return [Denied("", "", 0, count, float(last_s), name) for name, count, last_s in refused]


def _past_path(container: Container) -> str:
    return f"{container.directory}/denied.json"


def _past_denied(container: Container) -> list[Denied]:
    try:
        with open(_past_path(container), "rb") as file:
            return msgspec.json.decode(file.read(), type=list[Denied])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        log.warning("container %s: what it was refused before: %s", container.id, error)
        return []


def _summed(denied: Iterable[Denied]) -> list[Denied]:
    """One entry for each destination, the latest first."""
    found: dict[tuple[str, str, int, str], Denied] = {}
    for entry in denied:
        key = (entry.address, entry.protocol, entry.port, entry.name)
        known = found.get(key)
        found[key] = Denied(
            *key[:3],
            name=entry.name,
            packets=entry.packets + (known.packets if known else 0),
            last_s=max(entry.last_s, known.last_s if known else 0.0),
        )
    return sorted(found.values(), key=lambda entry: entry.last_s, reverse=True)
