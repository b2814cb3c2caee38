"""What a container wishes for in each of its networks: looked up, checked, turned into attachments.

Pure but for taking addresses, which is memory. Messages are dockerd's.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from sampan.engine.container import Container, Endpoint
from sampan.engine.model import EndpointConfig
from sampan.engine.sysctls import endpoint_sysctls
from sampan.errors import InvalidArgument
from sampan.linux.netlink import IFNAMSIZ
from sampan.network.driver import Attachment, Network

PREDEFINED = frozenset({"bridge", "host", "none"})
INTERFACE_NAME = "com.docker.network.endpoint.ifname"
NOTHING = EndpointConfig()


def is_user_defined(network: Network) -> bool:
    """Whether it is none of the three that there are from the start."""
    return network.name not in PREDEFINED


def wish_for(container: Container, network: Network) -> EndpointConfig:
    """What the user set for a network; clients name it by name, ID or as they do in NetworkMode."""
    asked = container.record.networking.endpoints_config or {}
    mode = container.host_config.network_mode
    names = [network.name, network.id]
    if mode in (network.name, network.id) or (mode in ("", "default") and network.name == "bridge"):
        names += [mode, "default"]
    return next((found for name in names if (found := asked.get(name))), NOTHING)


def check_wish(wish: EndpointConfig, network: Network) -> None:
    """Refuse what the network does not do.

    Raises:
        InvalidArgument: dockerd's texts.
    """
    endpoint_sysctls(wish.driver_opts)
    addresses = wish.ipam_config
    asked = bool(
        addresses and (addresses.ipv4_address or addresses.ipv6_address or addresses.link_local_ips)
    )
    if is_user_defined(network):
        if asked and addresses:
            _check_addresses(addresses.ipv4_address, addresses.ipv6_address, network)
            for text in addresses.link_local_ips or ():
                _link_local(text)
        return
    if wish.aliases:
        raise InvalidArgument(
            "network-scoped alias is supported only for containers in user defined networks"
        )
    if asked:
        raise InvalidArgument(
            "user specified IP address is supported on user defined networks only"
        )


def _check_addresses(address: str, address6: str, network: Network) -> None:
    for text, ipv6 in ((address, False), (address6, True)):
        if not text:
            continue
        plans = [plan for plan in getattr(network, "plans", ()) if plan.ipv6 == ipv6]
        if not plans:
            raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {text}")
        if not plans[0].asked:
            raise InvalidArgument(
                "user specified IP address is supported only when connecting to networks with user "
                "configured subnets"
            )


def attach(container: Container, network: Network) -> Attachment:
    """The container's place in the network, as it wishes.

    Raises:
        Conflict, InvalidArgument, Unavailable, Unsupported: it cannot be had.
    """
    wish = wish_for(container, network)
    check_wish(wish, network)
    addresses = wish.ipam_config
    attachment = network.attach(
        container.id,
        mac=wish.mac_address or _container_mac(container, network) or None,
        address=(addresses.ipv4_address if addresses else "") or None,
        address6=(addresses.ipv6_address if addresses else "") or None,
    )
    if attachment.endpoint is not None:
        attachment.endpoint.sysctls = endpoint_sysctls(wish.driver_opts)
    name_it(container, network, attachment)
    return attachment


def name_it(container: Container, network: Network, attachment: Attachment) -> None:
    """What it is called there, by which names it is found, and whom it calls by names of its own."""
    if not is_user_defined(network):
        return
    wish = wish_for(container, network)
    attachment.aliases = tuple(wish.aliases or ())
    names = (container.name, *attachment.aliases, container.id[:12], container.record.hostname)
    attachment.dns_names = tuple(dict.fromkeys(name for name in names if name))
    links = [*(wish.links or ())]
    if container.host_config.network_mode in (network.name, network.id):
        links += container.host_config.links or ()
    attachment.links = tuple(map(parse_link, links))
    if attachment.endpoint is not None and wish.ipam_config is not None:
        further = map(_link_local, wish.ipam_config.link_local_ips or ())
        attachment.endpoint.addresses = tuple(
            dict.fromkeys([*attachment.endpoint.addresses, *further])
        )


def _link_local(text: str) -> str:
    """A link-local address with the prefix length of its block.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid link-local IP address: {text}") from None
    if not address.is_link_local:
        raise InvalidArgument(f"invalid link local IP address: {text}")
    return f"{address}/{64 if address.version == 6 else 16}"


def parse_link(text: str) -> tuple[str, str]:
    """(the other container, what it is called here) of `NAME[:ALIAS]`; ends in older requests may
    be paths (`/db:/web/alias`)."""
    name, _, alias = text.partition(":")
    name = name.removeprefix("/")
    return name, alias.rpartition("/")[2] or name


def _container_mac(container: Container, network: Network) -> str:
    """`--mac-address` is for the network of NetworkMode."""
    mode = container.host_config.network_mode
    if mode in (network.name, network.id) or (mode in ("", "default") and network.name == "bridge"):
        return container.config.mac_address
    return ""


def name_interfaces(
    container: Container, joined: Sequence[tuple[Network, Attachment]], used: set[str]
) -> None:
    """Name the interfaces of new attachments: as wished, or by the next number that is free.

    Raises:
        InvalidArgument: a name that cannot be, or twice the same.
    """
    for network, attachment in joined:
        if attachment.endpoint is None:
            continue
        options = wish_for(container, network).driver_opts or {}
        name = options.get(INTERFACE_NAME, "")
        if name:
            _check_name(name, used)
        else:
            prefix = getattr(network, "interface_prefix", "eth")
            number = 0
            while (name := f"{prefix}{number}") in used:
                number += 1
        used.add(name)
        attachment.endpoint.name = name


def _check_name(name: str, used: set[str]) -> None:
    if len(name.encode()) >= IFNAMSIZ or "/" in name or " " in name or name in (".", "..", "lo"):
        raise InvalidArgument(f"invalid interface name {name!r}")
    if name in used:
        raise InvalidArgument(f"interface name {name!r} is already in use")


def choose_routes(container: Container, joined: Sequence[tuple[Network, Attachment]]) -> None:
    """Let one network of each family carry the default route: the highest GwPriority, of equal
    ones that with both families, then the first by name (docker's order)."""
    ranked = sorted(
        (pair for pair in joined if pair[1].endpoint is not None),
        key=lambda pair: (
            -wish_for(container, pair[0]).gw_priority,
            not (pair[1].gateway and pair[1].gateway6),
            pair[0].name,
        ),
    )
    found4 = found6 = False
    for _, attachment in ranked:
        endpoint = attachment.endpoint
        assert endpoint is not None
        has4 = bool(attachment.gateway or attachment.routed_by_device)
        endpoint.gateway = attachment.gateway if not found4 else ""
        endpoint.device_routes = attachment.routed_by_device and not found4
        endpoint.gateway6 = attachment.gateway6 if not found6 else ""
        found4 = found4 or has4
        found6 = found6 or bool(attachment.gateway6)


def noted(attachment: Attachment) -> Endpoint:
    """The attachment as the database keeps it."""
    endpoint = Endpoint(
        network=attachment.network_name,
        network_id=attachment.network_id,
        endpoint_id=attachment.endpoint_id,
    )
    veth = attachment.endpoint
    if veth is None:
        return endpoint
    for text in veth.addresses:
        address, _, prefix = text.partition("/")
        if address not in (attachment.address, attachment.address6):
            continue  # a link-local one, which the user named
        if ":" in address:
            endpoint.ipv6_address, endpoint.ipv6_prefix_length = address, int(prefix)
        else:
            endpoint.address, endpoint.prefix_length = address, int(prefix)
    endpoint.gateway, endpoint.ipv6_gateway = attachment.gateway, attachment.gateway6
    endpoint.mac_address = veth.mac
    endpoint.interface, endpoint.host_port = veth.name, veth.host_name
    return endpoint


def addresses_of(endpoint: Endpoint) -> list[str]:
    """The addresses that the database knows, with their prefix lengths."""
    found: list[tuple[Any, int]] = [
        (endpoint.address, endpoint.prefix_length),
        (endpoint.ipv6_address, endpoint.ipv6_prefix_length),
    ]
    return [f"{address}/{prefix}" for address, prefix in found if address]
