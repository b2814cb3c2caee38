"""Publishing and taking back ports of a container while it runs: what an update says of ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from sampan.engine.container import BoundPort, Container, Status
from sampan.engine.model import HostConfig, PortBinding, UpdateConfig
from sampan.engine.port_wishes import PortWish, check_bindings, container_port, port_wishes
from sampan.engine.registry import Registry
from sampan.errors import Conflict, InvalidArgument

Bindings = Mapping[str, list[PortBinding] | None]


class Publisher(Protocol):
    """Who publishes ports: `ports.Ports`."""

    def change(self, container: Container, wishes: Sequence[PortWish]) -> None:
        """Make a running container publish exactly this, or raise and change nothing."""


async def publish(
    container: Container, change: UpdateConfig, publisher: Publisher, registry: Registry
) -> None:
    """Carry out `publish_add` and `publish_remove`, now and for all further starts.

    Raises:
        InvalidArgument: a port that is none, or one to be removed that is not published.
        Conflict: the container has no ports of its own, or is being removed.
        RuntimeFailure: a port is taken, and nothing has changed.
    """
    adding, removing = change.publish_add or {}, change.publish_remove or {}
    check_bindings(adding)
    check_bindings(removing)
    async with container.lock:
        if container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"container {container.id} is marked for removal")
        before, exposed = container.host_config, container.config.exposed_ports
        if before.network_mode.partition(":")[0] in ("container", "host", "none"):
            raise Conflict(
                f"container {container.name} has no ports of its own: its network is "
                f"{before.network_mode}"
            )
        after = msgspec.structs.replace(
            before,
            port_bindings=_together(_without(before, container.record.ports, removing), adding),
        )
        container.config.exposed_ports = {**(exposed or {}), **{_key(text): {} for text in adding}}
        ports = container.record.ports
        try:
            if container.state.running:
                publisher.change(container, port_wishes(container.config, after))
            container.record.host_config = after
            registry.write(container)
        except BaseException:
            container.record.host_config = before
            container.config.exposed_ports = exposed
            if container.record.ports != ports:
                publisher.change(container, port_wishes(container.config, before))
            raise


def _without(
    host: HostConfig, bound: Sequence[BoundPort], removing: Bindings
) -> dict[str, list[PortBinding] | None]:
    """The bindings less those that are to go; of a port named without a binding all go."""
    left = {_key(text): list(listed or []) for text, listed in (host.port_bindings or {}).items()}
    for text, listed in removing.items():
        key = _key(text)
        present = left.pop(key, [])
        kept = [b for b in present if listed and not any(_meant(b, w, key, bound) for w in listed)]
        if len(kept) == len(present):
            raise InvalidArgument(f"port {key} is not published so")
        if kept:
            left[key] = kept
    return dict(left)


def _meant(binding: PortBinding, wanted: PortBinding, key: str, bound: Sequence[BoundPort]) -> bool:
    """Whether this binding is to go; the number of one that is any is the one that it got."""
    if wanted.host_ip and wanted.host_ip != binding.host_ip:
        return False
    if not wanted.host_port or wanted.host_port == binding.host_port:
        return True
    return binding.host_port in ("", "0") and any(
        f"{port.port}/{port.protocol}" == key and str(port.host_port) == wanted.host_port
        for port in bound
    )


def _together(
    bindings: dict[str, list[PortBinding] | None], adding: Bindings
) -> dict[str, list[PortBinding] | None]:
    for text, listed in adding.items():
        present = bindings.get(_key(text)) or []
        bindings[_key(text)] = present + [
            binding for binding in listed or [PortBinding()] if binding not in present
        ]
    return bindings


def _key(text: str) -> str:
    port, protocol = container_port(text)
    return f"{port}/{protocol}"
