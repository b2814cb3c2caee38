"""The text of the rules that `egress` puts in place: pure functions of tables, ports and policies.

What they do together is told in `egress`. Names in the tables, all after the interface `vethX` on the host:

    chain p-vethX              bridge: the port's packets: the container's own addresses, the mark
    chain c-vethX              inet: open connections pass, else the policies one after the other
    chain r0-vethX, r1-vethX   a policy each: returns for what it allows, else goes to d-vethX
    chain d-vethX              counts and rejects
    set vethX.1f00c4d2.4       addresses that the names of a group (by its digest) mean, by family
    set vethX.denied4, other4  refused destinations with ports, and those of protocols without
    counter vethX.denied       all refused packets
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sampan.network.policy import EVERYTHING, Group, NetworkPolicy, Ports
from sampan.network.segments import CABLES, SEGMENTS

DENIED_MAX = 1024  # destinations that are listed; the others are in the sum alone
DENIED_S = 86400
NAMES_MAX = 4096  # addresses of a group's names
POLICIES_MAX = 2  # the container's own, and that of the network
FAMILIES = (4, 6)

_WITH_PORTS = "{ tcp, udp, sctp }"
_IS_DISCOVERY = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"


@dataclass(frozen=True, slots=True)
class GuardedPort:
    """A container's interface as the host sees it, and the policies that all have to allow a packet.

    `bridge_mac` is that of the bridge with the gateway's address; an empty address means there is none.
    """

    host_port: str
    mac: str
    bridge_mac: str
    address: str
    address6: str
    policies: tuple[NetworkPolicy, ...]


def base(table: str) -> str:
    """Both tables with their hooks and maps; what is in the maps already stays."""
    return f"""
        add table bridge {table}
        add map bridge {table} ports {{ type ifname : verdict; }}
        add map bridge {table} macs {{ type ether_addr : ether_addr; }}
        add chain bridge {table} prerouting {{ type filter hook prerouting priority -150; }}
        flush chain bridge {table} prerouting
        add rule bridge {table} prerouting iifname vmap @ports
        add rule bridge {table} prerouting iifname "{CABLES}" accept
        add rule bridge {table} prerouting ether type ip6 {_IS_DISCOVERY} accept
        add rule bridge {table} prerouting ether type {{ ip, ip6 }} \
            ether daddr set ether daddr map @macs meta pkttype set host
        add table inet {table}
        add map inet {table} marks {{ type mark : verdict; }}
        add chain inet {table} prerouting {{ type filter hook prerouting priority mangle; }}
        flush chain inet {table} prerouting
        add rule inet {table} prerouting iifname "{SEGMENTS}" accept
        add rule inet {table} prerouting meta mark vmap @marks
        """


def without(table: str) -> str:
    """Neither table; adding what exists is no error, deleting what does not is one."""
    return "".join(
        f"add table {family} {table}\ndelete table {family} {table}\n"
        for family in ("bridge", "inet")
    )


def guard(table: str, port: GuardedPort, mark: int, stale_sets: set[str]) -> str:
    """Guard a port: its objects made or emptied and filled anew, and last the way to them."""
    name = port.host_port
    sets = sets_of(port)
    lines = [f"add chain bridge {table} p-{name}", f"flush chain bridge {table} p-{name}"]
    lines += [f"add rule bridge {table} p-{name} {rule}" for rule in _admission(port, mark)]
    for chain in _chains(name):
        lines += [f"add chain inet {table} {chain}", f"flush chain inet {table} {chain}"]
    lines += [_name_set(table, set) for set in sorted(sets)]
    lines += _denied_objects(table, name)
    lines += [f"add rule inet {table} {rule}" for rule in _judgement(port)]
    lines += [f"delete set inet {table} {set}" for set in sorted(stale_sets - sets)]
    lines += [
        f"add element inet {table} marks {{ {mark:#x} : goto c-{name} }}",
        f"add element bridge {table} macs {{ {port.mac} : {port.bridge_mac} }}",
        f'add element bridge {table} ports {{ "{name}" : goto p-{name} }}',
    ]
    return "\n".join(lines) + "\n"


def unguard(table: str, name: str, mac: str, mark: int, sets: set[str]) -> str:
    """Take a port's objects away; without `mac` it is not in the map of MACs."""
    lines = [
        f'delete element bridge {table} ports {{ "{name}" }}',
        *([f"delete element bridge {table} macs {{ {mac} }}"] if mac else []),
        f"delete element inet {table} marks {{ {mark:#x} }}",
        f"delete chain bridge {table} p-{name}",
        *(f"flush chain inet {table} {chain}" for chain in _chains(name)),
        *(f"delete chain inet {table} {chain}" for chain in _chains(name)),
        *(f"delete set inet {table} {set}" for set in sorted(sets | set(denied_sets(name)))),
        f"delete counter inet {table} {name}.denied",
    ]
    return "\n".join(lines) + "\n"


def sets_of(port: GuardedPort) -> set[str]:
    """The sets that the port's groups of names need."""
    return {
        f"{group_set(port.host_port, group)}.{family}"
        for policy in port.policies
        for group in policy.groups
        if group.names
        for family in FAMILIES
    }


def group_set(host_port: str, group: Group) -> str:
    """The name of a group's sets without the family; another group has another one."""
    digest = hashlib.sha256(repr((group.ports, sorted(group.names))).encode()).hexdigest()
    return f"{host_port}.{digest[:8]}"


def denied_sets(host_port: str) -> list[str]:
    """The sets of what was refused."""
    return [f"{host_port}.{kind}{family}" for kind in ("denied", "other") for family in FAMILIES]


def _chains(name: str) -> list[str]:
    """In an order in which they can be deleted: who leads to others comes first."""
    return [f"c-{name}", *(f"r{number}-{name}" for number in range(POLICIES_MAX)), f"d-{name}"]


def _admission(port: GuardedPort, mark: int) -> list[str]:
    """What may come in by the port at all: packets with the container's own addresses."""
    lift = f"meta mark set {mark:#x} meta pkttype set host ether daddr set {port.bridge_mac} accept"
    rules = [f"ether saddr != {port.mac} drop"]
    if port.address:
        rules += [
            f"arp saddr ether {port.mac} arp saddr ip {{ {port.address}, 0.0.0.0 }} accept",
            f"ip saddr {port.address} {lift}",
        ]
    if port.address6:
        rules += [
            f"ip6 saddr {{ {port.address6}, fe80::/10, :: }} ip6 hoplimit 255 {_IS_DISCOVERY} accept",
            f"ip6 saddr {port.address6} {lift}",
        ]
    return [*rules, "drop"]


def _judgement(port: GuardedPort) -> list[str]:
    name = port.host_port
    rules = [f"c-{name} ct state established,related meta mark set 0 accept"]
    for number, policy in enumerate(port.policies):
        rules.append(f"c-{name} jump r{number}-{name}")
        rules += [f"r{number}-{name} {rule}" for rule in _allowed(name, policy)]
    return [
        *rules,
        f"c-{name} meta mark set 0 accept",
        *(f"d-{name} {rule}" for rule in _refusal(name)),
    ]


def _allowed(name: str, policy: NetworkPolicy) -> list[str]:
    rules = []
    for group in policy.groups:
        ports = _match(group.ports)
        named = group_set(name, group)
        destinations = [
            *(
                f"{family} daddr {{ {', '.join(map(str, subnets))} }}"
                for family, subnets in (("ip", group.subnets), ("ip6", group.subnets6))
                if subnets
            ),
            *([f"ip daddr @{named}.4", f"ip6 daddr @{named}.6"] if group.names else []),
        ]
        rules += [f"{destination}{ports} return" for destination in destinations]
    return rules if policy.is_full else [*rules, f"goto d-{name}"]


def _match(ports: Ports) -> str:
    if ports == EVERYTHING:
        return ""
    span = f"{ports.first}-{ports.last}" if ports.last > ports.first else f"{ports.first}"
    return f" meta l4proto {{ {', '.join(ports.protocols)} }} th dport {span}"


def _refusal(name: str) -> list[str]:
    """A set that is full ends the rule, not the chain."""
    return [
        f"counter name {name}.denied",
        *(
            f"meta nfproto ipv{family} meta l4proto {_WITH_PORTS} "
            f"update @{name}.denied{family} {{ {field} daddr . meta l4proto . th dport }}"
            for family, field in ((4, "ip"), (6, "ip6"))
        ),
        *(
            f"meta nfproto ipv{family} meta l4proto != {_WITH_PORTS} "
            f"update @{name}.other{family} {{ {field} daddr . meta l4proto }}"
            for family, field in ((4, "ip"), (6, "ip6"))
        ),
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx admin-prohibited",
    ]


def _name_set(table: str, name: str) -> str:
    return (
        f"add set inet {table} {name} "
        f"{{ type ipv{name[-1]}_addr; flags timeout; size {NAMES_MAX}; }}"
    )


def _denied_objects(table: str, name: str) -> list[str]:
    kept = f"flags dynamic,timeout; timeout {DENIED_S}s; size {DENIED_MAX}; counter;"
    lines = [f"add counter inet {table} {name}.denied"]
    for set in denied_sets(name):
        service = " . inet_service" if ".denied" in set else ""
        lines.append(
            f"add set inet {table} {set} {{ type ipv{set[-1]}_addr . inet_proto{service}; {kept} }}"
        )
    return lines
