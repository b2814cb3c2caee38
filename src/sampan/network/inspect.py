"""Networks and attachments in the shapes of Docker's API: what inspect and the lists show.

The newest shape with the fields that older versions had kept; `api` takes away what a version
does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sampan.linux.netlink import VethEndpoint
    from sampan.network.driver import Attachment, Network


def endpoint_settings(
    attachment: Attachment | None,
    *,
    network_id: str = "",
    configured: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`EndpointSettings`: a container's place in one network.

    Without an attachment the container is not running; `network_id` is then that of the network
    it was last in. `configured` are the user's own settings, in the API's names (`IPAMConfig`,
    `Links`, `Aliases`, `DriverOpts`, `GwPriority`).
    """
    asked = configured or {}
    endpoint = attachment.endpoint if attachment else None
    address, prefix = _first(endpoint, ipv6=False)
    address6, prefix6 = _first(endpoint, ipv6=True)
    return {
        "IPAMConfig": asked.get("IPAMConfig"),
        "Links": asked.get("Links"),
        "Aliases": asked.get("Aliases"),
        "MacAddress": endpoint.mac if endpoint else "",
        "DriverOpts": asked.get("DriverOpts"),
        "GwPriority": asked.get("GwPriority") or 0,
        "NetworkID": attachment.network_id if attachment else network_id,
        "EndpointID": attachment.endpoint_id if attachment else "",
        "Gateway": attachment.gateway if attachment else "",
        "IPAddress": address,
        "IPPrefixLen": prefix,
        "IPv6Gateway": attachment.gateway6 if attachment else "",
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": prefix6,
        "DNSNames": list(attachment.dns_names) or None if attachment else None,
    }


def network_settings(
    networks: Mapping[str, Mapping[str, Any]],
    *,
    sandbox_id: str = "",
    sandbox_key: str = "",
    ports: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`NetworkSettings` of a container's inspect.

    `networks` are `endpoint_settings` by network name. The flat fields of API versions before
    1.21 repeat those of the default bridge.
    """
    flat = networks.get("bridge", {})
    return {
        "Bridge": "",
        "SandboxID": sandbox_id,
        "SandboxKey": sandbox_key,
        "Ports": dict(ports or {}),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": flat.get("EndpointID", ""),
        "Gateway": flat.get("Gateway", ""),
        "GlobalIPv6Address": flat.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": flat.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": flat.get("IPAddress", ""),
        "IPPrefixLen": flat.get("IPPrefixLen", 0),
        "IPv6Gateway": flat.get("IPv6Gateway", ""),
        "MacAddress": flat.get("MacAddress", ""),
        "Networks": {name: dict(values) for name, values in networks.items()},
    }


def network_resource(
    network: Network, *, created: str, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`Network` as `GET /networks/{id}` shows it.

    `created` is RFC 3339; `names` are the container names by ID, with which its containers are
    listed; None leaves them out, as the list of all networks does.
    """
    listed = () if names is None else network.attachments()
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": created,
        "Scope": "local",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": _containers(listed, names or {}),
        "Labels": {},
        **network.describe(),
    }


def _containers(attachments: Iterable[Attachment], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        attachment.container_id: {
            "Name": names.get(attachment.container_id, ""),
            "EndpointID": attachment.endpoint_id,
            "MacAddress": attachment.endpoint.mac if attachment.endpoint else "",
            "IPv4Address": _listed(attachment.endpoint, ipv6=False),
            "IPv6Address": _listed(attachment.endpoint, ipv6=True),
        }
        for attachment in attachments
    }


def _listed(endpoint: VethEndpoint | None, *, ipv6: bool) -> str:
    address, prefix = _first(endpoint, ipv6=ipv6)
    return f"{address}/{prefix}" if address else ""


def _first(endpoint: VethEndpoint | None, *, ipv6: bool) -> tuple[str, int]:
    """(address, prefix length) of the endpoint's first address of the family."""
    for address in endpoint.addresses if endpoint else ():
        if (":" in address) == ipv6:
            text, _, prefix = address.partition("/")
            return text, int(prefix)
    return "", 0
