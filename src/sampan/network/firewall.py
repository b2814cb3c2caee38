"""The rules that the bridge networks of one engine need, in an nftables table of its own.

The table holds two chains: `forward` lets the bridges' containers out and answers in, keeps the
networks apart, and drops what others would open towards them; `postrouting` masquerades what leaves a
bridge. Which bridges and subnets there are is in sets, so that one more or less changes no rule.

One table is not enough beside iptables: a packet has to be accepted by every chain at the forward
hook, and dockerd or ufw set the policy of iptables' own FORWARD chain to DROP. So where that chain
exists, two rules a bridge marked with the table's name go to its top, which accept what enters or leaves
through our bridge; whether it may is then decided by our own chain. They are made through nft
where iptables is iptables-nft, and by the iptables-legacy command where the old tables are loaded.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from sampan.errors import SampanError
from sampan.linux.nftables import Nft, NftError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.network.published import PublishedRules
    from sampan.network.rules import BridgeRules

_LEGACY_TABLES = "/proc/net/ip_tables_names"
_FORWARD = "ip filter FORWARD"  # where iptables-nft keeps its chain


class Firewall:
    """The rules of one engine's bridges; methods are idempotent, and block for some milliseconds.

    `published`, where given, are the rules of published ports: restored and removed with the others.
    """

    def __init__(self, *, table: str, nft: Nft | None = None) -> None:
        self.table = table
        self._nft = nft or Nft()
        self._bridges: dict[str, BridgeRules] = {}
        self._beside_iptables = False
        self.published: PublishedRules | None = None

    def install(self, bridges: Iterable[BridgeRules]) -> list[str]:
        """Put the rules of these bridges in place, whatever was there of ours before.

        Returns warnings: other chains that will drop what containers send.

        Raises:
            NftError: the kernel refused.
        """
        self._bridges = {rules.bridge: rules for rules in bridges}
        self._nft.run(self._ruleset())
        chains = [item["chain"] for item in self._nft.list("list chains") if "chain" in item]
        self._beside_iptables = any(map(_is_iptables_forward, chains))
        if self._beside_iptables:
            self._accept_in_iptables()
        self._accept_in_legacy_iptables(self._bridges)
        if self.published is not None and not self.published.intact():
            self.published.install()
        return self._warnings(chains)

    def add(self, rules: BridgeRules) -> None:
        """One bridge more, or other rules for one that there is.

        Raises:
            NftError: the kernel refused, and nothing has changed.
        """
        former = self._bridges.get(rules.bridge)
        if former == rules:
            return
        commands = self._elements("delete", former) if former else ""
        self._nft.run(commands + self._elements("add", rules))
        self._bridges[rules.bridge] = rules
        if self._beside_iptables and former is None:
            self._nft.run(self._iptables_rules(rules.bridge))
        self._accept_in_legacy_iptables([rules.bridge])

    def drop(self, bridge: str) -> None:
        """The bridge is no more; nothing happens if it was none of ours."""
        rules = self._bridges.pop(bridge, None)
        if rules is None:
            return
        self._nft.run(self._elements("delete", rules))
        if self._beside_iptables:
            for handle in self._iptables_handles(bridge):
                self._nft.run(f"delete rule {_FORWARD} handle {handle}")
        if _legacy_iptables_in_use():
            for rule in self._legacy_rules(bridge):
                _legacy("-D", rule, may_fail=True)

    def intact(self) -> bool:
        """Whether everything `install` put in place under nftables is still there."""
        items = self._nft.list("list chains")
        chains = [item["chain"] for item in items if "chain" in item]
        if not any((chain["family"], chain["table"]) == ("inet", self.table) for chain in chains):
            return False
        if self.published is not None and not self.published.intact():
            return False
        wanted = 2 * len(self._bridges)
        return not any(map(_is_iptables_forward, chains)) or (
            len(self._iptables_handles()) == wanted
        )

    def remove(self) -> None:
        """Take away every rule of ours; nothing happens where there is none."""
        self._nft.run(_delete_table(self.table))
        for handle in self._iptables_handles():
            self._nft.run(f"delete rule {_FORWARD} handle {handle}")
        if _legacy_iptables_in_use():
            for bridge in self._bridges:
                for rule in self._legacy_rules(bridge):
                    _legacy("-D", rule, may_fail=True)
        self._bridges.clear()
        if self.published is not None:
            self.published.remove()

    def close(self) -> None:
        """Free the connection to nftables."""
        self._nft.close()

    def _ruleset(self) -> str:
        table = self.table
        return f"""
            {_delete_table(table)}
            table inet {table} {{
                set bridges {{ type ifname; }}
                set internal {{ type ifname; }}
                set within {{ type ifname . ifname; }}
                set masqueraded {{ type ipv4_addr; flags interval; }}
                set masqueraded6 {{ type ipv6_addr; flags interval; }}
                map sources {{ type ipv4_addr : ipv4_addr; flags interval; }}
                map sources6 {{ type ipv6_addr : ipv6_addr; flags interval; }}
                chain forward {{
                    type filter hook forward priority filter; policy accept;
                    iifname . oifname @within accept
                    iifname @internal drop
                    oifname @internal drop
                    oifname != @bridges accept
                    ct state established,related accept
                    ct status dnat accept
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
            """ + "".join(self._elements("add", rules) for rules in self._bridges.values())

    def _elements(self, verb: str, rules: BridgeRules) -> str:
        """Commands that add a bridge to the sets, or delete it from them."""
        name = f'"{rules.bridge}"'
        found = [("bridges", name)]
        if rules.internal:
            found.append(("internal", name))
        if rules.icc:
            found.append(("within", f"{name} . {name}"))
        for subnet in rules.subnets:
            suffix, source, wanted = (
                ("6", rules.source6, rules.masquerade6)
                if ":" in subnet
                else ("", rules.source, rules.masquerade)
            )
            if rules.internal or not (wanted or source):
                continue
            if source:
                value = f"{subnet} : {source}" if verb == "add" else subnet
                found.append((f"sources{suffix}", value))
            else:
                found.append((f"masqueraded{suffix}", subnet))
        return "".join(
            f"{verb} element inet {self.table} {name} {{ {value} }}\n" for name, value in found
        )

    def _accept_in_iptables(self) -> None:
        handles = self._iptables_handles()
        if len(handles) == 2 * len(self._bridges):
            return
        self._nft.run(
            "".join(f"delete rule {_FORWARD} handle {handle}\n" for handle in handles)
            + "".join(map(self._iptables_rules, self._bridges))
        )

    def _iptables_rules(self, bridge: str) -> str:
        marked = f'counter accept comment "{self.table}"'
        return (
            f'insert rule {_FORWARD} iifname "{bridge}" {marked}\n'
            f'insert rule {_FORWARD} oifname "{bridge}" {marked}\n'
        )

    def _iptables_handles(self, bridge: str = "") -> list[int]:
        """Handles of our rules in iptables' FORWARD chain; those of one bridge if it is given."""
        try:
            items = self._nft.list(f"list chain {_FORWARD}")
        except NftError:
            return []  # no such chain: nobody uses iptables-nft here
        rules = [item["rule"] for item in items if "rule" in item]
        return [
            rule["handle"]
            for rule in rules
            if rule.get("comment") == self.table and (not bridge or _names(rule, bridge))
        ]

    def _accept_in_legacy_iptables(self, bridges: Iterable[str]) -> None:
        if not _legacy_iptables_in_use():
            return
        for bridge in bridges:
            for rule in self._legacy_rules(bridge):
                if not _legacy("-C", rule, may_fail=True):
                    _legacy("-I", rule)

    def _legacy_rules(self, bridge: str) -> list[list[str]]:
        mark = ["-m", "comment", "--comment", self.table, "-j", "ACCEPT"]
        return [["-i", bridge, *mark], ["-o", bridge, *mark]]

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
            and not _is_iptables_forward(chain)
        )


def _names(rule: dict[str, Any], bridge: str) -> bool:
    """Whether a rule compares something with the bridge's name."""
    return any(
        expression.get("match", {}).get("right") == bridge for expression in rule.get("expr", ())
    )


def _is_iptables_forward(chain: dict[str, Any]) -> bool:
    return f"{chain['family']} {chain['table']} {chain['name']}" == _FORWARD


def _delete_table(table: str) -> str:
    """Deleting what may not exist: adding a table that exists is no error."""
    return f"add table inet {table}\ndelete table inet {table}\n"


def _legacy_iptables_in_use() -> bool:
    """Whether somebody has loaded the old filter table (reading the file loads nothing)."""
    try:
        with open(_LEGACY_TABLES, encoding="ascii") as names:
            return "filter" in names.read().split()
    except OSError:
        return False


def _legacy(verb: str, rule: list[str], *, may_fail: bool = False) -> bool:
    command = ["iptables-legacy", "-w", verb, "FORWARD", *rule]
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | environment
        )
    except FileNotFoundError:
        return False  # the tables are loaded, yet nobody here could have set a policy in them
    if done.returncode and not may_fail:
        raise SampanError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.returncode == 0
