"""`sampan network connect`: put a container into a network, also while it runs."""

from __future__ import annotations

from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("alias", "", "strings", "", "Add network-scoped alias for the container"),
    ("driver-opt", "", "strings", "", "driver options for the network"),
    (
        "gw-priority",
        "",
        "int",
        "",
        "Highest gw-priority provides the default gateway. Accepts positive and negative values.",
    ),
    ("ip", "", "string", "", 'IPv4 address (e.g., "172.30.100.104")'),
    ("ip6", "", "string", "", 'IPv6 address (e.g., "2001:db8::33")'),
    ("link", "", "list", "", "Add link to another container"),
    ("link-local-ip", "", "strings", "", "Add a link-local address for the container"),
)


def run(call: Call) -> int:
    """Connect it."""
    network, container = call.args
    options: dict[str, str] = {}
    for text in call.items("driver-opt"):
        name, mark, value = text.partition("=")
        if not mark:
            raise CommandError("invalid key/value pair format in driver options")
        options[name.strip().lower()] = value.strip()
    addresses = {
        name: value
        for name, value in (
            ("IPv4Address", call.text("ip")),
            ("IPv6Address", call.text("ip6")),
            ("LinkLocalIPs", call.items("link-local-ip")),
        )
        if value
    }
    wish: dict[str, Any] = {
        "IPAMConfig": addresses or None,
        "Links": call.items("link") or None,
        "Aliases": call.items("alias") or None,
        "DriverOpts": options or None,
        "GwPriority": call.number("gw-priority"),
    }
    body = {"Container": container, "EndpointConfig": wish}
    call.client.call("POST", f"/networks/{quote(network)}/connect", body)
    return 0
