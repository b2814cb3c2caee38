"""The rules that the bridge networks of one engine need, in an nftables table of its own.

The table holds three chains: `forward` lets the bridges' containers out and answers in, keeps the
networks apart, and drops what others would open towards them; `postrouting` masquerades what leaves a
bridge; `segments` keeps frames on a network's further bridges out of connection tracking. Which bridges
and subnets there are is in sets, so that one more or less changes no rule.

One table is not enough beside iptables, see `beside_iptables`. One bridge more or less costs the same
however many there are: elements go to the kernel one by one, and nothing is listed for it.
"""

from __future__ import annotations

import threading
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from sampan.linux.nfnetlink import (
    NFPROTO_INET,
    Connection,
    Element,
    Message,
    delete_element,
    field,
    interface_key,
    new_element,
)
from sampan.linux.nftables import Nft, NftError
from sampan.network.beside_iptables import IptablesForward, is_iptables_forward
from sampan.network.published import PROTOCOLS
from sampan.network.segments import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sampan.network.published import PublishedRules
    from sampan.network.rules import BridgeRules

    # (set, key, data): keys are a bridge's name, or a subnet; data an address, or nothing.
    Member = tuple[str, str, str]


class Opening(NamedTuple):
    """A port of a container that a neighbour reaches though its bridge keeps them apart; IPv4."""

    source: str
    target: str
    protocol: str
    port: int


class OpenPort(NamedTuple):
    """A port of a container that others reach by the container's own address, of either family."""

    address: str
    protocol: str
    port: int


class Firewall:
    """The rules of one engine's bridges; methods are idempotent, and may be called by any thread.

    `add` and `drop` take 0.2 ms, the others some milliseconds. `published`, where given, are the rules
    of published ports: restored and removed with the others.
    """

    def __init__(self, *, table: str, nft: Nft | None = None) -> None:
        self.table = table
        self._nft = nft or Nft()
        self._connection = Connection()
        self._iptables = IptablesForward(table, self._nft)
        self._bridges: dict[str, BridgeRules] = {}
        self._lock = threading.Lock()
        self.installed = False
        self._openings: set[Opening] = set()
        self._open_ports: set[OpenPort] = set()
        self.published: PublishedRules | None = None

    def install(self, bridges: Iterable[BridgeRules]) -> list[str]:
        """Put the rules of these bridges in place, whatever was there of ours before.

        Returns warnings: other chains that will drop what containers send.

        Raises:
            NftError: the kernel refused.
        """
        with self._lock:
            self._bridges = {rules.bridge: rules for rules in bridges}
            self._nft.run(self._ruleset())
            self.installed = True
            chains = [item["chain"] for item in self._nft.list("list chains") if "chain" in item]
            self._iptables.install(self._names(), chains)
        if self.published is not None and not self.published.intact():
            self.published.install()
        return self._warnings(chains)

    def add(self, rules: BridgeRules) -> None:
        """One bridge more, or other rules for one that there is.

        Raises:
            NftError: the kernel refused, and nothing has changed.
        """
        if not self.installed:  # the first one of an engine that has no default bridge
            self.install([rules])
            return
        with self._lock:
            former = self._bridges.get(rules.bridge)
            if former == rules:
                return
            changes = self._changes(former, delete=True) if former else []
            self._transact(changes + self._changes(rules))
            self._bridges[rules.bridge] = rules
            if former is None:
                self._iptables.add(rules.bridge)

    def drop(self, bridge: str) -> None:
        """The bridge is no more; nothing happens if it was none of ours.

        Raises:
            NftError: the kernel refused.
        """
        with self._lock:
            rules = self._bridges.pop(bridge, None)
            if rules is None:
                return
            if self._bridges:
                self._transact(self._changes(rules, delete=True))
            else:
                self._nft.run(_delete_table(self.table))
                self.installed = False
                self._iptables.drop(SEGMENTS)
            self._iptables.drop(bridge)

    def link(self, openings: Iterable[Opening]) -> None:
        """Let neighbours through to these ports.

        Raises:
            NftError: the kernel refused, and nothing has changed.
        """
        with self._lock:
            new = set(openings) - self._openings
            self._transact_openings(new_element, new)
            self._openings |= new

    def unlink(self, openings: Iterable[Opening]) -> None:
        """Let them through no more; those that are not there are passed over."""
        with self._lock:
            old = self._openings.intersection(openings)
            self._openings -= old
            try:
                self._transact_openings(delete_element, old)
            except NftError:
                pass  # flushed by somebody else, and put back without them

    def open_ports(self, ports: Iterable[OpenPort]) -> None:
        """Let everybody through to these ports.

        Raises:
            NftError: the kernel refused, and nothing has changed.
        """
        with self._lock:
            new = set(ports) - self._open_ports
            self._transact_ports(new_element, new)
            self._open_ports |= new

    def close_ports(self, ports: Iterable[OpenPort]) -> None:
        """Let them through no more; those that are not open are passed over."""
        with self._lock:
            old = self._open_ports.intersection(ports)
            self._open_ports -= old
            try:
                self._transact_ports(delete_element, old)
            except NftError:
                pass  # flushed by somebody else, and put back without them

    def _transact_ports(self, change: Callable[..., Message], ports: Iterable[OpenPort]) -> None:
        changes = [
            change(NFPROTO_INET, self.table, _open_set(each), [_open_element(each)])
            for each in ports
        ]
        if changes:
            self._transact(changes)

    def _transact_openings(
        self, change: Callable[..., Message], openings: Iterable[Opening]
    ) -> None:
        changes = [change(NFPROTO_INET, self.table, "links", [_opening(each)]) for each in openings]
        if changes:
            self._transact(changes)

    def intact(self) -> bool:
        """Whether everything `install` put in place under nftables is still there."""
        items = self._nft.list("list chains")
        chains = [item["chain"] for item in items if "chain" in item]
        if not any((chain["family"], chain["table"]) == ("inet", self.table) for chain in chains):
            return False
        if self.published is not None and not self.published.intact():
            return False
        with self._lock:
            return self._iptables.intact(self._names(), chains)

    def remove(self) -> None:
        """Take away every rule of ours; nothing happens where there is none."""
        with self._lock:
            self._nft.run(_delete_table(self.table))
            self._iptables.remove([*self._bridges, SEGMENTS])
            self._bridges.clear()
            self._openings.clear()
            self._open_ports.clear()
            self.installed = False
        if self.published is not None:
            self.published.remove()

    def close(self) -> None:
        """Free the connections to nftables."""
        self._nft.close()
        self._connection.close()
        self._iptables.close()

    def _names(self) -> list[str]:
        """The bridges for iptables, further ones among them."""
        return [*self._bridges, SEGMENTS] if self._bridges else []

    def _ruleset(self) -> str:
        table = self.table
        return (
            f"""
            {_delete_table(table)}
            table inet {table} {{
                set bridges {{ type ifname; }}
                set internal {{ type ifname; }}
                set within {{ type ifname . ifname; }}
                set open {{ type ifname; }}
                set open6 {{ type ifname; }}
                set trusted {{ type ifname . ifname; }}
                set links {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; }}
                set published {{ type ipv4_addr . inet_proto . inet_service; }}
                set published6 {{ type ipv6_addr . inet_proto . inet_service; }}
                set masqueraded {{ type ipv4_addr; flags interval; }}
                set masqueraded6 {{ type ipv6_addr; flags interval; }}
                map sources {{ type ipv4_addr : ipv4_addr; flags interval; }}
                map sources6 {{ type ipv6_addr : ipv6_addr; flags interval; }}
                chain segments {{
                    type filter hook prerouting priority raw; policy accept;
                    iifname "{SEGMENTS}" notrack
                }}
                chain forward {{
                    type filter hook forward priority filter; policy accept;
                    iifname . oifname @within accept
                    iifname @internal drop
                    oifname @internal drop
                    oifname != @bridges accept
                    ct state established,related accept
                    ct status dnat accept
                    meta nfproto ipv4 oifname @open accept
                    meta nfproto ipv6 oifname @open6 accept
                    iifname . oifname @trusted accept
                    ip saddr . ip daddr . meta l4proto . th dport @links accept
                    ip daddr . meta l4proto . th dport @published accept
                    ip6 daddr . meta l4proto . th dport @published6 accept
                    drop
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat; policy accept;
                    oifname @bridges return
                    snat ip to ip saddr map @sources
                    snat ip6 to ip6 saddr map @sources6
                    ip saddr @masqueraded masquerade
                    ip6 saddr @masqueraded6 masquerade
                }}
            }}
            """
            + "".join(
                f"add element inet {self.table} {name} {{ {_text(name, key, data)} }}\n"
                for rules in self._bridges.values()
                for name, key, data in _members(rules)
            )
            + "".join(
                f"add element inet {self.table} links {{ {' . '.join(map(str, opening))} }}\n"
                for opening in self._openings
            )
            + "".join(
                f"add element inet {self.table} {_open_set(each)} {{ {' . '.join(map(str, each))} }}\n"
                for each in self._open_ports
            )
        )

    def _transact(self, changes: list[Message]) -> None:
        try:
            self._connection.transact(changes)
        except OSError as error:
            raise NftError(f"nftables: {error.strerror}") from error

    def _changes(self, rules: BridgeRules, *, delete: bool = False) -> list[Message]:
        change = delete_element if delete else new_element
        return [
            change(NFPROTO_INET, self.table, name, _elements(name, key, data))
            for name, key, data in _members(rules)
        ]

    def _warnings(self, chains: list[dict[str, Any]]) -> list[str]:
        """Who else will drop what containers send, and what to do about it."""
        ours = " or ".join(sorted(self._bridges)[:3])
        found = [
            f"chain {chain['family']} {chain['table']} {chain['name']} drops forwarded packets: "
            f"containers reach the outside only if it accepts those of {ours}"
            for chain in chains
            if self._blocks(chain)
        ]
        if any(chain["table"] == "firewalld" for chain in chains):
            known = self._nft.run("list table inet firewalld")
            found += [
                f"firewalld rejects what containers send until {bridge} is in a zone: "
                f"firewall-cmd --permanent --zone=trusted --add-interface={bridge} "
                "&& firewall-cmd --reload"
                for bridge in self._bridges
                if f'"{bridge}"' not in known
            ]
        return found

    def _blocks(self, chain: dict[str, Any]) -> bool:
        return (
            chain.get("hook") == "forward"
            and chain.get("policy") == "drop"
            and chain["family"] in ("ip", "inet")
            and chain["table"] != self.table
            and not is_iptables_forward(chain)
        )


def _members(rules: BridgeRules) -> list[Member]:
    """What a bridge is in the sets."""
    bridge = rules.bridge
    found: list[Member] = [("bridges", bridge, "")]
    if rules.internal:
        found.append(("internal", bridge, ""))
    if rules.icc:
        found.append(("within", bridge, ""))
    if not rules.internal:
        found += [("open", bridge, "")] * rules.open + [("open6", bridge, "")] * rules.open6
    found += [("trusted", bridge, interface) for interface in rules.trusted]
    for subnet in rules.subnets if not rules.internal else ():
        if ":" in subnet:
            suffix, source, wanted = "6", rules.source6, rules.masquerade6
        else:
            suffix, source, wanted = "", rules.source, rules.masquerade
        if source:
            found.append((f"sources{suffix}", subnet, source))
        elif wanted:
            found.append((f"masqueraded{suffix}", subnet, ""))
    return found


def _text(name: str, key: str, data: str) -> str:
    """A member in nft's language."""
    if name == "within":
        return f'"{key}" . "{key}"'
    if name == "trusted":
        return f'"{data}" . "{key}"'
    if "/" not in key:
        return f'"{key}"'
    return f"{key} : {data}" if data else key


def _elements(name: str, key: str, data: str) -> list[Element]:
    """A member as the kernel keeps it: a subnet is its first address, and the one behind its last."""
    if "/" not in key:
        packed = interface_key(key)
        if name == "trusted":
            return [Element(interface_key(data) + packed)]
        return [Element(packed * 2 if name == "within" else packed)]
    network = ip_network(key)
    first = network.network_address.packed
    found = [Element(first, ip_address(data).packed if data else b"")]
    behind = int(network.broadcast_address) + 1
    if behind < 1 << network.max_prefixlen:
        found.append(Element(behind.to_bytes(len(first), "big"), ends_range=True))
    return found


def _opening(opening: Opening) -> Element:
    return Element(
        ip_address(opening.source).packed
        + ip_address(opening.target).packed
        + field(bytes([PROTOCOLS[opening.protocol]]))
        + field(opening.port.to_bytes(2, "big"))
    )


def _open_set(port: OpenPort) -> str:
    return "published6" if ":" in port.address else "published"


def _open_element(port: OpenPort) -> Element:
    return Element(
        ip_address(port.address).packed
        + field(bytes([PROTOCOLS[port.protocol]]))
        + field(port.port.to_bytes(2, "big"))
    )


def _delete_table(table: str) -> str:
    """Deleting what may not exist: adding a table that exists is no error."""
    return f"add table inet {table}\ndelete table inet {table}\n"
