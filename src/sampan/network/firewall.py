"""The rules a bridge network needs, in an nftables table of its own.

The table holds two chains: `forward` lets the bridge's containers out and answers in, and drops
what others would open towards them; `postrouting` masquerades what leaves the bridge. It is
replaced as a whole, in one transaction.

One table is not enough beside iptables: a packet has to be accepted by every chain at the forward
hook, and dockerd or ufw set the policy of iptables' own FORWARD chain to DROP. So where that chain
exists, two rules marked with the table's name go to its top, which accept what enters or leaves
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
    from typing import Any

_LEGACY_TABLES = "/proc/net/ip_tables_names"
_FORWARD = "ip filter FORWARD"  # where iptables-nft keeps its chain


class Firewall:
    """The rules of one bridge; methods are idempotent, and block for some milliseconds."""

    def __init__(self, *, table: str, bridge: str, nft: Nft | None = None) -> None:
        self.table = table
        self.bridge = bridge
        self._nft = nft or Nft()

    def install(self, *, subnet: str, icc: bool = True, masquerade: bool = True) -> list[str]:
        """Put the rules in place, whatever was there of ours before.

        Returns warnings: other chains that will drop what containers send.

        Raises:
            NftError: the kernel refused.
        """
        self._nft.run(self._ruleset(subnet, icc=icc, masquerade=masquerade))
        chains = [item["chain"] for item in self._nft.list("list chains") if "chain" in item]
        if any(_is_iptables_forward(chain) for chain in chains):
            self._accept_in_iptables()
        self._accept_in_legacy_iptables()
        return self._warnings(chains)

    def intact(self) -> bool:
        """Whether everything `install` put in place under nftables is still there."""
        items = self._nft.list("list chains")
        chains = [item["chain"] for item in items if "chain" in item]
        if not any(chain["table"] == self.table for chain in chains):
            return False
        return not any(map(_is_iptables_forward, chains)) or len(self._iptables_handles()) == 2

    def remove(self) -> None:
        """Take away every rule of ours; nothing happens where there is none."""
        self._nft.run(_delete_table(self.table))
        for handle in self._iptables_handles():
            self._nft.run(f"delete rule {_FORWARD} handle {handle}")
        if _legacy_iptables_in_use():
            for rule in self._legacy_rules():
                _legacy("-D", rule, may_fail=True)

    def close(self) -> None:
        """Free the connection to nftables."""
        self._nft.close()

    def _ruleset(self, subnet: str, *, icc: bool, masquerade: bool) -> str:
        bridge = self.bridge
        nat = f'ip saddr {subnet} oifname != "{bridge}" masquerade' if masquerade else ""
        return f"""
            {_delete_table(self.table)}
            table inet {self.table} {{
                chain forward {{
                    type filter hook forward priority filter; policy accept;
                    oifname != "{bridge}" accept
                    iifname "{bridge}" {"accept" if icc else "drop"}
                    ct state established,related accept
                    ct status dnat accept
                    drop
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat; policy accept;
                    {nat}
                }}
            }}
            """

    def _accept_in_iptables(self) -> None:
        handles = self._iptables_handles()
        if len(handles) == 2:
            return
        marked = f'counter accept comment "{self.table}"'
        self._nft.run(
            "".join(f"delete rule {_FORWARD} handle {handle}\n" for handle in handles)
            + f'insert rule {_FORWARD} iifname "{self.bridge}" {marked}\n'
            f'insert rule {_FORWARD} oifname "{self.bridge}" {marked}\n'
        )

    def _iptables_handles(self) -> list[int]:
        """Handles of our rules in iptables' FORWARD chain."""
        try:
            items = self._nft.list(f"list chain {_FORWARD}")
        except NftError:
            return []  # no such chain: nobody uses iptables-nft here
        rules = [item["rule"] for item in items if "rule" in item]
        return [rule["handle"] for rule in rules if rule.get("comment") == self.table]

    def _accept_in_legacy_iptables(self) -> None:
        if not _legacy_iptables_in_use():
            return
        for rule in self._legacy_rules():
            if not _legacy("-C", rule, may_fail=True):
                _legacy("-I", rule)

    def _legacy_rules(self) -> list[list[str]]:
        mark = ["-m", "comment", "--comment", self.table, "-j", "ACCEPT"]
        return [["-i", self.bridge, *mark], ["-o", self.bridge, *mark]]

    def _warnings(self, chains: list[dict[str, Any]]) -> list[str]:
        """Who else will drop what containers send, and what to do about it."""
        found = [
            f"chain {chain['family']} {chain['table']} {chain['name']} drops forwarded packets: "
            f"containers reach the outside only if it accepts those of {self.bridge}"
            for chain in chains
            if self._blocks(chain)
        ]
        if any(chain["table"] == "firewalld" for chain in chains) and not self._in_a_zone():
            found.append(
                f"firewalld rejects what containers send until {self.bridge} is in a zone: "
                f"firewall-cmd --permanent --zone=trusted --add-interface={self.bridge} "
                "&& firewall-cmd --reload"
            )
        return found

    def _in_a_zone(self) -> bool:
        """Whether firewalld's rules name our bridge."""
        return f'"{self.bridge}"' in self._nft.run("list table inet firewalld")

    def _blocks(self, chain: dict[str, Any]) -> bool:
        return (
            chain.get("hook") == "forward"
            and chain.get("policy") == "drop"
            and chain["family"] in ("ip", "inet")
            and chain["table"] != self.table
            and not _is_iptables_forward(chain)
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
