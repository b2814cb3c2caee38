"""The rules behind published ports: the kernel translates, no process stands in between.

    published = PublishedRules("sampan", respect_firewall=True)
    published.open(["sampan0"])                     # takes over what a former daemon left
    published.add([Forward("tcp", "", 8080, "172.30.0.2", 80)])
    published.drop([…])

Tables of their own, `ip sampan` and `ip6 sampan`, made when the first port is published. Who goes
where is in maps, so a port more is two elements (60 µs) and no packet walks a list.

**The host's firewall is respected**: the first packet of a connection from outside is *not* translated
before the host's own `input` rules have seen it. It goes the way of a packet to the host itself; what
every chain at that hook has accepted reaches our chain, the last one there, which sends a copy back in
through a veth pair of ours (the *loop*) and drops the original. What comes in by the loop is translated,
and with that the connection is known: its other packets go straight to the container. So a drop rule
for the port counts, and the container sees the client's address. With `respect_firewall=False`
packets are translated at once, before any rule of the host's `input` path, as by dockerd.

Packets of the host itself are translated at the output hook, those of containers on their way in.
Of 127.0.0.1 the container sees the bridge's address, as it does of itself by the host's address.
`::1` goes through the loop, too (`published_tables`).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING

from sampan.linux.nfnetlink import (
    Connection,
    Element,
    Message,
    delete_element,
    elements,
    field,
    has_set,
    interface_key,
    new_element,
)
from sampan.linux.nftables import Nft, NftError
from sampan.network.loop import Loop, write_setting
from sampan.network.published_tables import FAMILIES, Forward, Tables, wire_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

log = logging.getLogger(__name__)

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
# Changes with the rules below: tables of another format are replaced and not taken over.
_FORMAT = "format2"
_BRIDGED_TOO = "/proc/sys/net/bridge/bridge-nf-call-iptables"


class PublishedRules:
    """The published ports of one engine, in the kernel; methods block for well below a millisecond,
    but for the first `add` and after somebody else's flush (some milliseconds).
    """

    def __init__(
        self, table: str, *, respect_firewall: bool = True, nft: Nft | None = None
    ) -> None:
        self.table = table
        self.respect_firewall = respect_firewall
        self.warnings: list[str] = []
        self._nft = nft or Nft()
        self._connection = Connection()
        self._bridges: set[str] = set()
        self._forwards: set[Forward] = set()
        self._selves: Counter[str] = Counter()  # how many forwards lead to an address
        self._inherited: dict[tuple[int, str, bytes], bytes] = {}
        self._installed = False
        self._looped = False
        self._loop = Loop(table)

    @property
    def loop(self) -> str:
        """The interface by which admitted packets come in; its peer goes with it."""
        return self._loop.way_in

    @property
    def installed(self) -> bool:
        """Whether there has been a published port."""
        return self._installed

    def open(self, bridges: Iterable[str]) -> None:
        """Say which bridges there are, and take over the rules that a former daemon left.

        Its ports go on; those that are not added again until `settle` go then.

        Raises:
            OSError: the kernel does not answer.
        """
        self._bridges = set(bridges)
        if not all(has_set(family, self.table, self._format()) for family in FAMILIES):
            return
        for family in FAMILIES:
            for name in ("exact", "anywhere"):
                for key, data in elements(family, self.table, name):
                    self._inherited[family, name, key] = data
        self._installed = True
        self._looped = self._loop.exists()
        self._add_bridges(self._bridges)

    def settle(self) -> None:
        """Drop the inherited ports that nobody has claimed."""
        left, self._inherited = self._inherited, {}
        self._transact(
            [message for family, name, key in left for message in self._delete(family, name, key)]
        )

    def add(self, forwards: Sequence[Forward]) -> None:
        """Publish ports, all of them or none.

        Raises:
            OSError, NftError: the kernel refused, and why.
        """
        if not forwards:
            return
        if not self._installed:
            self._note(forwards)
            try:
                self.install()
            except (OSError, NftError):
                self._forget(forwards)
                raise
            return
        changes = [m for forward in forwards for m in self._adding(forward)]
        changes += [
            new_element(family, self.table, "self", [Element(_packed(address) * 2)])
            for family, address in {(f.family, f.address) for f in forwards}
        ]
        self._connection.transact(changes)
        self._note(forwards)

    def drop(self, forwards: Iterable[Forward]) -> None:
        """Take ports back; those that are not there are passed over."""
        known = [forward for forward in forwards if forward in self._forwards]
        self._forget(known)
        changes = [
            message
            for forward in known
            for name, key, _ in self._entries(forward)
            for message in self._delete(forward.family, name, key)
        ]
        changes += [
            delete_element(family, self.table, "self", [Element(_packed(address) * 2)])
            for family, address in {(f.family, f.address) for f in known}
            if address not in self._selves
        ]
        self._transact(changes)

    def add_bridge(self, bridge: str) -> None:
        """One bridge more; idempotent."""
        if bridge not in self._bridges:
            self._bridges.add(bridge)
            if self._installed:
                self._add_bridges([bridge])

    def drop_bridge(self, bridge: str) -> None:
        """The bridge is no more; nothing happens if it was not known."""
        if bridge not in self._bridges:
            return
        self._bridges.discard(bridge)
        if self._installed:
            self._transact(
                [
                    delete_element(family, self.table, name, [item])
                    for family in FAMILIES
                    for name, item in _bridge_elements(bridge)
                ]
            )

    def intact(self) -> bool:
        """Whether the tables and the loop are still there, where they have to be."""
        if not self._installed:
            return True
        if not all(has_set(family, self.table, self._format()) for family in FAMILIES):
            return False
        return not self._looped or self._loop.exists()

    def install(self) -> None:
        """Put everything in place, in one transaction, whatever was there of ours before.

        Raises:
            OSError, NftError: the kernel refused.
        """
        self.warnings = []
        try:
            self._loop.make()
            self._looped = True
            self._nft.run(self._text(respectful=self.respect_firewall))
        except (OSError, NftError) as error:
            passing = "pass by the host's firewall and " if self.respect_firewall else ""
            self.warnings = [
                f"published ports {passing}are not found at ::1: the kernel lacks a part ({error})"
            ]
            log.warning("%s", self.warnings[0])
            self._looped = False
            self._nft.run(self._text(respectful=False))
        for bridge in self._bridges:
            _route_localnet(bridge)
        self._installed = True
        self._inherited.clear()

    def remove(self) -> None:
        """Take everything away; nothing happens where there is nothing."""
        for family in FAMILIES.values():
            self._nft.run(f"add table {family} {self.table}\ndelete table {family} {self.table}\n")
        self._loop.remove()
        self._installed = False
        self._forwards.clear()
        self._selves.clear()
        self.close()

    def close(self) -> None:
        """Leave the rules as they are and let go of them."""
        self._connection.close()
        self._nft.close()

    def _text(self, *, respectful: bool) -> str:
        tables = Tables(
            self.table,
            self._format(),
            loop=self._loop,
            looped=self._looped,
            bridges=self._bridges,
            forwards=self._forwards,
        )
        return "".join(tables.text(family, respectful=respectful) for family in FAMILIES)

    def _format(self) -> str:
        return f"{_FORMAT}-{'respectful' if self.respect_firewall else 'direct'}"

    def _adding(self, forward: Forward) -> list[Message]:
        family = forward.family
        changes = []
        for name, key, data in self._entries(forward):
            former = self._inherited.pop((family, name, key), None)
            if former == data:
                continue
            if former is not None:  # another container had the port when the former daemon died
                changes += self._delete(family, name, key)
            changes += [
                new_element(family, self.table, name, [Element(key, data)]),
                new_element(family, self.table, *self._opening(name, key)),
            ]
        return changes

    def _note(self, forwards: Iterable[Forward]) -> None:
        new = set(forwards) - self._forwards
        self._forwards |= new
        self._selves.update(forward.address for forward in new)

    def _forget(self, forwards: Iterable[Forward]) -> None:
        for forward in self._forwards.intersection(forwards):
            self._forwards.discard(forward)
            self._selves[forward.address] -= 1
            if not self._selves[forward.address]:
                del self._selves[forward.address]

    def _delete(self, family: int, name: str, key: bytes) -> list[Message]:
        return [
            delete_element(family, self.table, name, [Element(key)]),
            delete_element(family, self.table, *self._opening(name, key)),
        ]

    def _entries(self, forward: Forward) -> list[tuple[str, bytes, bytes]]:
        """(map, key, data) of the port, as the kernel keeps them."""
        protocol = field(bytes([PROTOCOLS[forward.protocol]]))
        port = field(struct.pack(">H", forward.host_port))
        data = _packed(forward.address) + field(struct.pack(">H", forward.port))
        if forward.host_address:
            return [("exact", protocol + _packed(wire_address(forward, self._loop)) + port, data)]
        return [("anywhere", protocol + port, data)]

    def _opening(self, name: str, key: bytes) -> tuple[str, list[Element]]:
        """The set, and its element, by which packets for an entry are told from others."""
        if name == "exact" and key[4:-4] == self._loop.far.packed:
            return "loopback", [Element(key[:4] + key[-4:])]
        return f"{name}-open", [Element(key)]

    def _add_bridges(self, bridges: Iterable[str]) -> None:
        self._connection.transact(
            [
                new_element(family, self.table, name, [item])
                for bridge in bridges
                for family in FAMILIES
                for name, item in _bridge_elements(bridge)
            ]
        )
        for bridge in bridges:
            _route_localnet(bridge)

    def _transact(self, changes: list[Message]) -> None:
        """Delete; what somebody else has flushed needs no deleting, and repairing looks after the rest."""
        try:
            self._connection.transact(changes)
        except OSError as error:
            log.debug("published ports: %s", error)
            for change in changes:
                with contextlib.suppress(OSError):
                    self._connection.transact([change])


def bridged_packets_are_filtered() -> bool:
    """Whether the kernel shows frames between ports of a bridge to the packet filter (br_netfilter).

    A container that calls itself by the host's address then needs a port that sends a frame back
    where it came from.
    """
    try:
        with open(_BRIDGED_TOO, encoding="ascii") as setting:
            return setting.read().strip() == "1"
    except OSError:
        return False


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _bridge_elements(bridge: str) -> list[tuple[str, Element]]:
    key = interface_key(bridge)
    return [
        ("bridges", Element(key)),
        ("doors", Element(key)),
        ("hairpin", Element(key + key)),
    ]


def _route_localnet(bridge: str) -> None:
    """Let answers to 127.0.0.1 come in by the bridge; the rules keep everything else for it out."""
    write_setting(f"ipv4/conf/{bridge}/route_localnet", "1")
