"""`sampan network create`: make a network."""

from __future__ import annotations

from sampan.cli.failures import CommandError
from sampan.cli.flags import assignments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("attachable", "", "bool", "", "Enable manual container attachment"),
    ("aux-address", "", "map", "map[]", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
    ("config-from", "", "string", "", "The network from which to copy the configuration"),
    ("config-only", "", "bool", "", "Create a configuration only network"),
    ("driver", "d", "string", '"bridge"', "Driver to manage the Network"),
    ("gateway", "", "strings", "", "IPv4 or IPv6 Gateway for the master subnet"),
    ("ingress", "", "bool", "", "Create swarm routing-mesh network"),
    ("internal", "", "bool", "", "Restrict external access to the network"),
    ("ip-range", "", "strings", "", "Allocate container ip from a sub-range"),
    ("ipam-driver", "", "string", '"default"', "IP Address Management Driver"),
    ("ipam-opt", "", "map", "map[]", "Set IPAM driver specific options"),
    ("ipv4", "", "bool", "true", "Enable or disable IPv4 address assignment"),
    ("ipv6", "", "bool", "", "Enable or disable IPv6 address assignment"),
    ("label", "", "list", "", "Set metadata on a network"),
    ("lease", "", "string", "", "Lease that the network goes with"),
    ("network-policy", "", "string", "", "What its containers may reach: none, full or allow:NAME[:PORT],ADDRESS/BITS…"),
    ("opt", "o", "map", "map[]", "Set driver specific options"),
    ("scope", "", "string", "", "Control the network's scope"),
    ("subnet", "", "strings", "", "Subnet in CIDR format that represents a network segment"),
)  # fmt: skip


def run(call: Call) -> int:
    """Make it, and print its ID."""
    call.use_lease()
    labels = assignments(call.items("label"))
    if call.text("network-policy"):
        labels["dev.sampan.network-policy"] = call.text("network-policy")
    body: dict[str, Any] = {
        "Name": call.args[0],
        "CheckDuplicate": True,
        "Driver": call.text("driver") or "bridge",
        "Scope": call.text("scope"),
        "EnableIPv6": call.on("ipv6"),
        "IPAM": {
            "Driver": call.text("ipam-driver") or "default",
            "Options": assignments(call.items("ipam-opt")),
            "Config": _subnets(call),
        },
        "Internal": call.on("internal"),
        "Attachable": call.on("attachable"),
        "Ingress": call.on("ingress"),
        "ConfigOnly": call.on("config-only"),
        "ConfigFrom": {"Network": call.text("config-from")} if call.text("config-from") else None,
        "Options": assignments(call.items("opt")),
        "Labels": labels,
    }
    if "ipv4" in call.changed:
        body["EnableIPv4"] = call.on("ipv4")
    call.say(call.client.call("POST", "/networks/create", body)["Id"])
    return 0


def _subnets(call: Call) -> list[dict[str, Any]]:
    """`IPAM.Config`: to each subnet the range, gateway and addresses that lie in it.

    Raises:
        CommandError: docker's texts.
    """
    subnets, ranges = call.items("subnet"), call.items("ip-range")
    gateways, auxiliary = call.items("gateway"), assignments(call.items("aux-address"))
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise CommandError("every ip-range or gateway must have a corresponding subnet")
    from ipaddress import ip_interface, ip_network

    try:
        found = {text: ip_network(text, strict=False) for text in subnets}
    except ValueError:
        return [{"Subnet": text} for text in subnets]  # the engine says what is wrong with it
    known = list(found.values())
    for index, subnet in enumerate(known):
        if any(subnet.version == o.version and subnet.overlaps(o) for o in known[:index]):
            raise CommandError("multiple overlapping subnet configuration is not supported")
    configs: dict[str, dict[str, Any]] = {text: {"Subnet": text} for text in subnets}

    def owner(what: str, text: str) -> dict[str, Any]:
        try:
            address = ip_interface(text).ip
        except ValueError:
            raise CommandError(f"invalid {what} {text}") from None
        for name, subnet in found.items():
            if address in subnet:
                return configs[name]
        raise CommandError(f"no matching subnet for {what} {text}")

    for what, field, texts in (("range", "IPRange", ranges), ("gateway", "Gateway", gateways)):
        for text in texts:
            config = owner(what, text)
            if field in config:
                name = "ranges" if field == "IPRange" else "gateways"
                raise CommandError(
                    f"cannot configure multiple {name} ({text}, {config[field]}) on the same "
                    f"subnet ({config['Subnet']})"
                )
            config[field] = text
    for name, text in auxiliary.items():
        owner("aux-address", text).setdefault("AuxiliaryAddresses", {})[name] = text
    return list(configs.values())
