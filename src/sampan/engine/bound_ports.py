"""A container's published and exposed ports in the shapes of Docker's API."""

from __future__ import annotations

from typing import Any

from sampan.engine.container import Container
from sampan.engine.port_wishes import container_port


def shown(container: Container) -> dict[str, list[dict[str, str]] | None]:
    """`NetworkSettings.Ports` of a running container: exposed ports, and where they are published."""
    found: dict[str, list[dict[str, str]] | None] = {}
    for text in container.config.exposed_ports or {}:
        port, protocol = container_port(text)
        found[f"{port}/{protocol}"] = None
    for bound in container.record.ports:
        key = f"{bound.port}/{bound.protocol}"
        places = found.get(key) or []
        number = str(bound.host_port) if bound.host_port else ""  # routed, and none of the host's
        places.append({"HostIp": bound.host_address, "HostPort": number})
        found[key] = places
    return found


def listed(container: Container) -> list[dict[str, Any]]:
    """`Ports` in a list of containers: published ports, and exposed ones that are not."""
    found: list[dict[str, Any]] = []
    published = set()
    for bound in container.record.ports:
        published.add((bound.port, bound.protocol))
        entry: dict[str, Any] = {"IP": bound.host_address, "PrivatePort": bound.port}
        if bound.host_port:
            entry["PublicPort"] = bound.host_port
        found.append(entry | {"Type": bound.protocol})
    for text in container.config.exposed_ports or {}:
        port, protocol = container_port(text)
        if (port, protocol) not in published:
            found.append({"PrivatePort": port, "Type": protocol})
    return sorted(found, key=lambda item: (item["PrivatePort"], item["Type"], item.get("IP", "")))
