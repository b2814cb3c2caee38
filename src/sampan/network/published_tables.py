"""The tables behind published ports, as text: what `published` puts in place at once.

Who goes where is in maps that `published` changes element by element. In one step the kernel cannot
translate **`::1`**: it drops what comes in by a bridge for that address. So a connection to it goes
through the loop, and is tracked twice, in a zone of its own on the one side: `::1` → `::1` becomes
*near* → *far* at the output hook, and *far* the container at the other end. Answers come back the
same way, for `::1` only by the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.linux.nfnetlink import NFPROTO_IPV4, NFPROTO_IPV6
from sampan.network import loop as loops

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sampan.network.loop import Loop

FAMILIES = {NFPROTO_IPV4: "ip", NFPROTO_IPV6: "ip6"}
LOOPBACK6 = "::1"
_GATEWAYS = {NFPROTO_IPV4: loops.GATEWAY, NFPROTO_IPV6: loops.GATEWAY6}
# Far enough behind everybody else at the input hook; the kernel's own last step has 2147483647.
_LAST = 2147483646
_LOOP_ZONE = 0x5A4D  # of connections to ::1, as they are before the loop


@dataclass(frozen=True, slots=True)
class Forward:
    """A published port: `host_address` is empty for all of the family of `address`, the container's."""

    protocol: str
    host_address: str
    host_port: int
    address: str
    port: int

    @property
    def family(self) -> int:
        return NFPROTO_IPV6 if ":" in self.address else NFPROTO_IPV4


class Tables:
    """What there is to be in the tables; `looped`: the loop is there. `form` names their format."""

    def __init__(
        self,
        table: str,
        form: str,
        *,
        loop: Loop,
        looped: bool,
        bridges: Collection[str],
        forwards: Collection[Forward],
    ) -> None:
        self._table = table
        self._format = form
        self._loop = loop
        self._looped = looped
        self._bridges = bridges
        self._forwards = forwards

    def text(self, family: int, *, respectful: bool) -> str:
        """The commands that replace the table of a family."""
        word, table = FAMILIES[family], self._table
        address = f"{'ipv4' if word == 'ip' else 'ipv6'}_addr"
        loopback = "127.0.0.0/8" if word == "ip" else "::1"
        translate = f"""
                    fib daddr type != local return
                    dnat {word} to meta l4proto . {word} daddr . th dport map @exact
                    dnat {word} to meta l4proto . th dport map @anywhere"""
        admission = f"""
                chain input {{
                    type filter hook input priority {_LAST}; policy accept;
                    iifname "{self._loop.way_in}" drop
                    ct state != new accept
                    meta l4proto . {word} daddr . th dport @exact-open goto admit
                    meta l4proto . th dport @anywhere-open fib daddr type local goto admit
                }}
                chain admit {{
                    dup to {_GATEWAYS[family]} device "{self._loop.way_out}"
                    drop
                }}"""
        first = "iifname != @doors return" if respectful else ""
        six = family == NFPROTO_IPV6 and self._looped
        return f"""
            add table {word} {table}
            delete table {word} {table}
            table {word} {table} {{
                set {self._format} {{ type mark; }}
                set doors {{ type ifname; {_listed(self._doors())} }}
                set bridges {{ type ifname; {_listed(map(_quoted, self._bridges))} }}
                set hairpin {{ type ifname . ifname;
                    {_listed(f"{_quoted(b)} . {_quoted(b)}" for b in self._bridges)} }}
                set self {{ type {address} . {address}; {self._listed_selves(family)} }}
                map exact {{ type inet_proto . {address} . inet_service : {address} . inet_service;
                    {self._listed_forwards(family, "exact")} }}
                map anywhere {{ type inet_proto . inet_service : {address} . inet_service;
                    {self._listed_forwards(family, "anywhere")} }}
                set exact-open {{ type inet_proto . {address} . inet_service;
                    {self._listed_forwards(family, "exact", keys=True)} }}
                set anywhere-open {{ type inet_proto . inet_service;
                    {self._listed_forwards(family, "anywhere", keys=True)} }}
                set loopback {{ type inet_proto . inet_service;
                    {self._listed_loopback(family)} }}
                chain guard {{
                    type filter hook prerouting priority raw; policy accept;
                    {word} daddr {loopback} iifname @bridges drop
                }}
                chain prerouting {{
                    type nat hook prerouting priority dstnat; policy accept;
                    {self._far_end() if six else ""}{first}{translate}
                }}
                chain output {{
                    type nat hook output priority -100; policy accept;
                    {self._to_loopback(f"dnat to {self._loop.far}") if six else ""}{translate}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat; policy accept;
                    {word} saddr {loopback} oifname @bridges masquerade
                    ct status dnat iifname . oifname @hairpin masquerade
                    ct status dnat {word} saddr . {word} daddr @self masquerade
                    {self._near_source() if six else ""}
                }}{admission if respectful else ""}{self._loopback_chains() if six else ""}
            }}
            """

    def _to_loopback(self, statement: str) -> str:
        """Do it to packets for published ports of ::1."""
        return "".join(
            f"""
                    ip6 daddr ::1 meta l4proto . th dport @{name} {statement}"""
            for name in ("loopback", "anywhere-open")
        )

    def _far_end(self) -> str:
        arrived = f'iifname "{self._loop.way_in}" ip6 daddr {self._loop.far}'
        return f"""
                    {arrived} dnat ip6 to meta l4proto . ip6 daddr . th dport map @exact
                    {arrived} dnat ip6 to meta l4proto . th dport map @anywhere
                    """

    def _near_source(self) -> str:
        return (
            f'oifname "{self._loop.way_out}" ip6 daddr {self._loop.far} snat to {self._loop.near}'
        )

    def _loopback_chains(self) -> str:
        """Who belongs to the zone; and that nobody else sends to the two addresses."""
        zone = f"ct zone set {_LOOP_ZONE}"
        return f"""
                chain zone-out {{
                    type filter hook output priority raw; policy accept;{self._to_loopback(zone)}
                }}
                chain zone-in {{
                    type filter hook prerouting priority raw; policy accept;
                    iifname "{self._loop.way_out}" {zone}
                    ip6 daddr {self._loop.far} iifname != "{self._loop.way_in}" drop
                }}
                chain zone-known {{
                    type filter hook prerouting priority mangle; policy accept;
                    iifname "{self._loop.way_out}" ct state new,invalid,untracked drop
                    ip6 daddr {self._loop.near} ct state new,invalid,untracked drop
                }}"""

    def _doors(self) -> list[str]:
        """Interfaces whose packets are translated at once."""
        return [_quoted(name) for name in [*self._bridges, self._loop.way_in]]

    def _listed_selves(self, family: int) -> str:
        return _listed(
            f"{address} . {address}"
            for address in {f.address for f in self._forwards if f.family == family}
        )

    def _listed_forwards(self, family: int, name: str, *, keys: bool = False) -> str:
        found = []
        for forward in self._forwards:
            if forward.family != family or (name == "exact") != bool(forward.host_address):
                continue
            if keys and forward.host_address == LOOPBACK6:
                continue
            parts = [forward.protocol, wire_address(forward, self._loop), str(forward.host_port)]
            key = " . ".join(part for part in parts if part)
            found.append(key if keys else f"{key} : {forward.address} . {forward.port}")
        return _listed(found)

    def _listed_loopback(self, family: int) -> str:
        return _listed(
            f"{forward.protocol} . {forward.host_port}"
            for forward in self._forwards
            if forward.host_address == LOOPBACK6 and forward.family == family
        )


def wire_address(forward: Forward, loop: Loop) -> str:
    """The host's address in packets when they are translated."""
    return str(loop.far) if forward.host_address == LOOPBACK6 else forward.host_address


def _listed(items: Iterable[str]) -> str:
    text = ", ".join(sorted(items))
    return f"elements = {{ {text} }}" if text else ""


def _quoted(name: str) -> str:
    return f'"{name}"'
