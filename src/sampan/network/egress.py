"""Egress policies in the kernel: what a container may open connections to, decided on the host.

A container is known by the port through which its packets come, not by anything that it writes into
them: root with every capability in its own network namespace cannot get around it. Two tables exist as
long as a container has a policy:

    bridge T-policy   prerouting: by the port, packets get a mark; those that do not bear the container's
                      own addresses are dropped. All IP packets from and to such a container are lifted
                      to the host's IP layer, also those between neighbours on one bridge.
    inet T-policy     prerouting, after connection tracking: by the mark. What belongs to an open
                      connection passes; else the destination is looked up; else it is counted and
                      rejected (TCP by a reset, others as "administratively prohibited").

A group of a policy that has names owns two sets, one per family, that begin empty; `policy_gate` puts in
the addresses that the resolver has just answered with. So whatever was not looked up fails, and goes on
failing while daemon and resolver are dead.

Adding or removing a container is one transaction of its own chains and sets and three map elements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from sampan.linux import nfnetlink
from sampan.linux.nftables import Nft, NftError
from sampan.network import egress_rules as rules
from sampan.network.egress_rules import GuardedPort
from sampan.network.policy import EVERYTHING, Group

_FIRST_MARK = 0x5A000001  # it lives from the bridge's hook to the IP layer's, where it is taken off
_MARKS = 1 << 20
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


@dataclass(frozen=True, slots=True)
class Denied:
    """A destination that was refused: packets so far, and when the last one came (Unix time).

    `port` is 0 for a protocol without ports. An empty address stands for all that are not listed, or,
    with a `name`, for a name that was asked for in vain.
    """

    address: str
    protocol: str
    port: int
    packets: int
    last_s: float
    name: str = ""


class Egress:
    """The policies of one engine's containers, by their ports; methods block for 1-3 ms."""

    def __init__(self, *, table: str, nft: Nft | None = None) -> None:
        self.table = f"{table}-policy"
        self._nft = nft or Nft()
        self._ports: dict[str, GuardedPort] = {}
        self._marks: dict[str, int] = {}
        self._sets: dict[str, set[str]] = {}
        self._left_macs: set[str] = set()

    @property
    def ports(self) -> Collection[str]:
        """The guarded ports, also those that a former daemon guarded."""
        return self._marks.keys()

    def adopt(self) -> None:
        """Take note of what a former daemon left, which guards on until `put` again or `settle`d."""
        try:
            marks = self._elements("inet", "map", "marks")
            gateways = self._elements("bridge", "map", "macs")
            items = self._nft.list(f"list sets inet {self.table}")
        except NftError:
            return
        self._marks = {
            verdict["goto"]["target"].removeprefix("c-"): mark for mark, verdict in marks
        }
        for item in items:
            name = item.get("set", {}).get("name", "")
            port = name.partition(".")[0]
            if port in self._marks and name not in rules.denied_sets(port):
                self._sets.setdefault(port, set()).add(name)
        self._left_macs = {mac for mac, _ in gateways}

    def settle(self) -> None:
        """Drop what a former daemon left and nobody has `put` again.

        Raises:
            NftError: the kernel refused.
        """
        self.drop([name for name in self._marks if name not in self._ports])
        stale = self._left_macs - {port.mac for port in self._ports.values()}
        self._left_macs = set()
        if stale and self._ports:
            self._nft.run(f"delete element bridge {self.table} macs {{ {', '.join(stale)} }}")

    def put(self, ports: Iterable[GuardedPort]) -> None:
        """Guard these ports, each by its policies alone, from the moment that this returns.

        Addresses that names were bound to stay so in groups that did not change.

        Raises:
            NftError: the kernel refused; everything is as before.
        """
        wanted = {port.host_port: port for port in ports}
        marks = dict(self._marks)
        for name in wanted:
            if name not in marks:
                marks[name] = _free_mark(marks)
        self._nft.run(
            "".join(
                [
                    "" if self._ports else rules.base(self.table),
                    *(
                        rules.guard(self.table, port, marks[name], self._sets.get(name, set()))
                        for name, port in wanted.items()
                    ),
                ]
            )
        )
        self._marks = marks
        self._ports |= wanted
        self._sets |= {name: rules.sets_of(port) for name, port in wanted.items()}

    def drop(self, host_ports: Iterable[str]) -> None:
        """Guard these ports no longer; nothing happens for those that are not guarded.

        Raises:
            NftError: the kernel refused.
        """
        gone = [name for name in host_ports if name in self._marks]
        if not gone:
            return
        if len(gone) == len(self._marks):
            self._nft.run(rules.without(self.table))
        else:
            self._nft.run("".join(map(self._removal, gone)))
        for name in gone:
            for known in (self._ports, self._marks, self._sets):
                known.pop(name, None)

    def intact(self) -> bool:
        """Whether nobody has taken the tables away."""
        return not self._ports or (
            nfnetlink.has_set(nfnetlink.NFPROTO_INET, self.table, "marks")
            and nfnetlink.has_set(nfnetlink.NFPROTO_BRIDGE, self.table, "ports")
        )

    def restore(self) -> None:
        """Put everything back after somebody took it, without what names were bound to.

        Raises:
            NftError: the kernel refused.
        """
        ports = list(self._ports.values())
        self._nft.run(rules.without(self.table))
        self._ports, self._sets = {}, {}
        try:
            self.put(ports)
        except NftError:
            self._ports = {port.host_port: port for port in ports}
            raise

    def denied(self, host_port: str) -> list[Denied]:
        """What was refused at this port in the last day; empty for a port that is not guarded."""
        if host_port not in self._ports:
            return []
        now_s = time.time()
        found = [
            _denied(entry["elem"], now_s)
            for name in rules.denied_sets(host_port)
            for entry in self._elements("inet", "set", name)
        ]
        listed = sum(entry.packets for entry in found)
        for item in self._nft.list(f"list counter inet {self.table} {host_port}.denied"):
            if item["counter"]["packets"] > listed:
                found.append(Denied("", "", 0, item["counter"]["packets"] - listed, now_s))
        return found

    def allower(self, host_port: str) -> Callable[[bytes, int, int], bool]:
        """Whether the port's policies allow a connection: packed address, protocol number, port.

        By the addresses that names are bound to at this moment.

        Raises:
            OSError: the kernel does not tell.
        """
        port = self._ports[host_port]
        known = {
            name: {key for key, _ in nfnetlink.elements(nfnetlink.NFPROTO_INET, self.table, name)}
            for name in rules.sets_of(port)
        }

        def allows(destination: bytes, protocol: int, number: int) -> bool:
            return all(
                policy.is_full
                or any(
                    _means(group, protocol, number) and _leads_to(port, group, destination, known)
                    for group in policy.groups
                )
                for policy in port.policies
            )

        return allows

    def document(self, host_ports: Sequence[str]) -> dict[str, Any]:
        """What `policy_gate.open_gate` has to know of a container with these ports, as JSON.

        A list per policy of its groups with names: the names, and the sets of all ports.
        """
        policies: dict[str, dict[str, dict[str, Any]]] = {}
        for port in (self._ports[name] for name in host_ports if name in self._ports):
            for policy in port.policies:
                if policy.is_full:
                    continue
                groups = policies.setdefault(policy.text, {})
                for number, group in enumerate(policy.groups):
                    if group.names:
                        entry = groups.setdefault(
                            str(number), {"names": list(group.names), "sets": []}
                        )
                        entry["sets"].append(rules.group_set(port.host_port, group))
        return {
            "table": self.table,
            "policies": [list(groups.values()) for groups in policies.values()],
        }

    def remove(self) -> None:
        """Take all of it away."""
        self._nft.run(rules.without(self.table))
        for known in (self._ports, self._marks, self._sets):
            known.clear()

    def close(self) -> None:
        """Let go of the connection; what is guarded stays so."""
        self._nft.close()

    def _removal(self, name: str) -> str:
        port = self._ports.get(name)
        return rules.unguard(
            self.table,
            name,
            port.mac if port else "",
            self._marks[name],
            self._sets.get(name, set()),
        )

    def _elements(self, family: str, kind: str, name: str) -> list[Any]:
        for item in self._nft.list(f"list {kind} {family} {self.table} {name}"):
            if kind in item:
                return list(item[kind].get("elem", ()))
        return []


def _free_mark(marks: dict[str, int]) -> int:
    used = set(marks.values())
    return next(mark for mark in range(_FIRST_MARK, _FIRST_MARK + _MARKS) if mark not in used)


def _means(group: Group, protocol: int, number: int) -> bool:
    """Whether the group's ports mean this one."""
    ports = group.ports
    if ports == EVERYTHING:
        return True
    return _PROTOCOLS.get(protocol) in ports.protocols and ports.first <= number <= ports.last


def _leads_to(
    port: GuardedPort, group: Group, destination: bytes, known: dict[str, set[bytes]]
) -> bool:
    """Whether the address is in one of the group's subnets, or belongs to one of its names."""
    address = ip_address(destination)
    subnets = group.subnets if address.version == 4 else group.subnets6
    if any(address in subnet for subnet in subnets):
        return True
    named = f"{rules.group_set(port.host_port, group)}.{address.version}"
    return destination in known.get(named, ())


def _denied(element: dict[str, Any], now_s: float) -> Denied:
    address, protocol, *port = element["val"]["concat"]
    return Denied(
        address=address,
        protocol=str(protocol),
        port=int(port[0]) if port else 0,
        packets=element["counter"]["packets"],
        last_s=now_s - rules.DENIED_S + element.get("expires", rules.DENIED_S),
    )
