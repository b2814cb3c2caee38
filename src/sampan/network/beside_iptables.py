"""Rules in iptables' FORWARD chain that accept what enters or leaves by our bridges.

A packet has to be accepted by every chain at the forward hook, and dockerd or ufw set the policy of
iptables' own to DROP. So where that chain exists, two rules a bridge, marked by a comment, go to its
top; whether a packet may pass is decided by our own chain. They are made by nf_tables' messages where
iptables is iptables-nft, and by the iptables-legacy command where the old tables are loaded.

One bridge more or less is one transaction, whatever their number: the kernel told the rules' handles.
A name that ends in an asterisk stands for all that begin so.
Not thread-safe.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from sampan.errors import SampanError
from sampan.linux import nftexpr
from sampan.linux.nfnetlink import (
    NF_ACCEPT,
    NFPROTO_IPV4,
    Connection,
    Message,
    comment_of,
    delete_rule,
    handle_of,
    interface_key,
    new_rule,
)
from sampan.linux.nftables import Nft, NftError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

_LEGACY_TABLES = "/proc/net/ip_tables_names"
_TABLE, _CHAIN = "filter", "FORWARD"  # where iptables-nft keeps its chain


class IptablesForward:
    """The rules of one engine's bridges there, with `mark` as their comment."""

    def __init__(self, mark: str, nft: Nft) -> None:
        self._mark = mark
        self._nft = nft
        self._connection = Connection()
        self._handles: dict[str, list[int]] = {}
        self._there = False

    def install(self, bridges: Collection[str], chains: Iterable[dict[str, Any]]) -> None:
        """Have rules for exactly these bridges; `chains` are all that there are.

        Raises:
            SampanError: the kernel or the command refused.
        """
        self._there = any(map(is_iptables_forward, chains))
        self._handles = self._found() if self._there else {}
        if self._there and not self._complete(bridges):
            self._delete([handle for handles in self._handles.values() for handle in handles])
            self._handles = {}
            self._add(bridges)
        self._add_legacy(bridges)

    def add(self, bridge: str) -> None:
        """One bridge more.

        Raises:
            SampanError: the kernel or the command refused.
        """
        if self._there and bridge not in self._handles:
            self._add([bridge])
        self._add_legacy([bridge])

    def drop(self, bridge: str) -> None:
        """The bridge is no more."""
        self._delete(self._handles.pop(bridge, ()))
        self._drop_legacy([bridge])

    def intact(self, bridges: Collection[str], chains: Iterable[dict[str, Any]]) -> bool:
        """Whether all rules are there that have to be; not asked of the old tables."""
        if not any(map(is_iptables_forward, chains)):
            return True
        self._handles = self._found()
        return self._complete(bridges)

    def remove(self, bridges: Iterable[str]) -> None:
        """Take away every rule of ours."""
        self._delete([handle for handles in self._found().values() for handle in handles])
        self._handles = {}
        self._drop_legacy(bridges)

    def close(self) -> None:
        """Let go of the kernel; the rules stay."""
        self._connection.close()

    def _complete(self, bridges: Collection[str]) -> bool:
        return dict.fromkeys(bridges, 2) == {
            bridge: len(handles) for bridge, handles in self._handles.items()
        }

    def _found(self) -> dict[str, list[int]]:
        """Handles of our rules, by their bridges."""
        try:
            items = self._nft.list(f"list chain ip {_TABLE} {_CHAIN}")
        except NftError:
            return {}  # no such chain: nobody uses iptables-nft here
        found: dict[str, list[int]] = {}
        for rule in (item["rule"] for item in items if "rule" in item):
            if rule.get("comment") == self._mark:
                found.setdefault(_interface(rule), []).append(rule["handle"])
        return found

    def _add(self, bridges: Iterable[str]) -> None:
        for bridge in bridges:
            made = self._transact(
                [
                    new_rule(
                        NFPROTO_IPV4,
                        _TABLE,
                        _CHAIN,
                        [
                            nftexpr.meta(side),
                            nftexpr.equal(_key(bridge)),
                            nftexpr.counter(),
                            nftexpr.decide(NF_ACCEPT),
                        ],
                        comment=self._mark,
                        first=True,
                        repeated=True,
                    )
                    for side in (nftexpr.META_IIFNAME, nftexpr.META_OIFNAME)
                ]
            )
            self._handles[bridge] = [handle_of(rule) for rule in made]

    def _delete(self, handles: Iterable[int]) -> None:
        """Each only if it is ours: who restores a saved set of rules numbers them anew."""
        for handle in handles:
            try:
                rule = self._connection.rule(NFPROTO_IPV4, _TABLE, _CHAIN, handle)
            except OSError:
                continue  # it has gone with its table
            if comment_of(rule) == self._mark:
                self._transact([delete_rule(NFPROTO_IPV4, _TABLE, _CHAIN, handle)])

    def _transact(self, changes: list[Message]) -> list[bytes]:
        try:
            return self._connection.transact(changes)
        except OSError as error:
            raise NftError(f"nftables: {error.strerror}") from error

    def _add_legacy(self, bridges: Iterable[str]) -> None:
        if not _legacy_in_use():
            return
        for bridge in bridges:
            for rule in self._legacy_rules(bridge):
                if not _legacy("-C", rule, may_fail=True):
                    _legacy("-I", rule)

    def _drop_legacy(self, bridges: Iterable[str]) -> None:
        if not _legacy_in_use():
            return
        for bridge in bridges:
            for rule in self._legacy_rules(bridge):
                _legacy("-D", rule, may_fail=True)

    def _legacy_rules(self, bridge: str) -> list[list[str]]:
        mark = ["-m", "comment", "--comment", self._mark, "-j", "ACCEPT"]
        name = bridge.replace("*", "+")
        return [["-i", name, *mark], ["-o", name, *mark]]


def _key(bridge: str) -> bytes:
    """What is compared; of a name that stands for many only its beginning."""
    return bridge[:-1].encode() if bridge.endswith("*") else interface_key(bridge)


def is_iptables_forward(chain: dict[str, Any]) -> bool:
    """Whether a chain, as nft lists it, is iptables-nft's FORWARD of IPv4."""
    return (chain["family"], chain["table"], chain["name"]) == ("ip", _TABLE, _CHAIN)


def _interface(rule: dict[str, Any]) -> str:
    """What a rule, as nft lists it, compares an interface with."""
    for expression in rule.get("expr", ()):
        if "match" in expression:
            return str(expression["match"]["right"])
    return ""


def _legacy_in_use() -> bool:
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
