"""A container's egress policy as the resolver sees it: which names it may ask for, and what becomes of the
addresses in the answers.

    gate = open_gate(egress.document(ports))           # the document came as JSON from the daemon
    if gate.allows("pypi.org"):                        # else nothing leaves, and it is counted
        …
        gate.learn("pypi.org", [(packed, ttl_s)])      # before the container gets the answer

`learn` puts the addresses into the kernel's sets that belong to the name; what fails there fails the
look-up, so that no container hears of an address that it cannot reach. Addresses live there for as long
as the answer may be kept, and a little longer: programs keep what they looked up. Without being renewed by
another look-up they go, and connections that are open then stay.

The standard library and `linux` only: the resolver is a small process.
"""

from __future__ import annotations

import time

from sampan.linux import nfnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LIFE_MINIMUM_S = 60  # of an address, whatever its TTL
LIFE_MAXIMUM_S = 86400
GRACE_S = 30  # between the resolver's answer and the program's connection
SLACK_S = 10  # by which a life may be shorter, so that a busy name is not renewed at each look-up
REFUSED_MAX = 1024  # names that are listed
LEARNED_MAX = 4096  # addresses that are remembered for a change of the policy


class Gate:
    """The policies of one container: each of them has to allow a name."""

    def __init__(self, policy: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._table = str(policy["table"])
        self._policies: list[list[dict[str, Any]]] = policy["policies"]
        self._clock = clock
        self._connection: nfnetlink.Connection | None = None
        # name → address → when it goes; and address → set → until when it is kept there
        self._learned: dict[str, dict[bytes, float]] = {}
        self._count = 0
        self._kept: dict[bytes, dict[str, float]] = {}
        self._refused: dict[str, list[Any]] = {}

    def allows(self, name: str) -> bool:
        """Whether the name (lower case, no last dot) may be asked for; a refusal is noted."""
        if all(self._groups(groups, name) for groups in self._policies):
            return True
        self._note_refusal(name)
        return False

    def learn(self, name: str, addresses: list[tuple[bytes, int]]) -> None:
        """Let the container reach the addresses (packed, TTL in seconds) of a name.

        Raises:
            OSError: the kernel refused; the container must not get the answer.
        """
        now = self._clock()
        for address, ttl_s in addresses:
            life_s = min(max(ttl_s, LIFE_MINIMUM_S), LIFE_MAXIMUM_S) + GRACE_S
            self._remember(name, address, now + life_s)
        self._keep(name, dict(self._learned.get(name, {})), now)

    def refused(self) -> list[Any]:
        """[name, how often, when last (Unix time)] of the names that were not allowed."""
        return [[name, *counts] for name, counts in self._refused.items()]

    def take_over(self, former: Gate) -> None:
        """Go on from the gate of another policy: what was learned holds where this one allows it.

        Raises:
            OSError: the kernel refused.
        """
        self._refused = former._refused
        now = self._clock()
        for name, addresses in former._learned.items():
            if all(self._groups(groups, name) for groups in self._policies):
                for address, until in addresses.items():
                    if until > now:
                        self._remember(name, address, until)
                self._keep(name, self._learned.get(name, {}), now)

    def close(self) -> None:
        """Let go of the kernel; what was learned lives on there."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _groups(self, groups: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
        return [group for group in groups if any(_matches(entry, name) for entry in group["names"])]

    def _note_refusal(self, name: str) -> None:
        if name not in self._refused and len(self._refused) >= REFUSED_MAX:
            del self._refused[next(iter(self._refused))]
        counts = self._refused.setdefault(name, [0, 0])
        counts[0] += 1
        counts[1] = int(time.time())

    def _remember(self, name: str, address: bytes, until: float) -> None:
        if address not in self._learned.get(name, {}):
            if self._count >= LEARNED_MAX:
                self._forget_oldest()
            self._count += 1
        known = self._learned.setdefault(name, {})
        known[address] = max(until, known.get(address, 0.0))

    def _forget_oldest(self) -> None:
        """One name's addresses, the one that was first looked up; sets forget by themselves."""
        addresses = self._learned.pop(next(iter(self._learned)))
        self._count -= len(addresses)
        for address in addresses:
            self._kept.pop(address, None)

    def _keep(self, name: str, addresses: dict[bytes, float], now: float) -> None:
        """Put into the sets what is not there for long enough yet.

        A kernel before 6.12 does not renew the life of an element: it is taken out and put in again, in
        one transaction, and at no moment missing.
        """
        changes: list[nfnetlink.Message] = []
        kept: list[tuple[bytes, str, float]] = []
        for group in (entry for groups in self._policies for entry in self._groups(groups, name)):
            for base in group["sets"]:
                for address, until in addresses.items():
                    if until <= now or until - SLACK_S <= self._kept.get(address, {}).get(
                        base, 0.0
                    ):
                        continue
                    kept.append((address, base, until))
                    life_ms = int((until - now) * 1000)
                    changes += self._renewal(
                        f"{base}.{4 if len(address) == 4 else 6}", address, life_ms
                    )
        if changes:
            if self._connection is None:
                self._connection = nfnetlink.Connection()
            self._connection.transact(changes)
            for address, base, until in kept:
                self._kept.setdefault(address, {})[base] = until

    def _renewal(self, name: str, address: bytes, life_ms: int) -> list[nfnetlink.Message]:
        element = [nfnetlink.Element(address, timeout_ms=life_ms)]
        family = nfnetlink.NFPROTO_INET
        add = nfnetlink.new_element(family, self._table, name, element)
        return [add, nfnetlink.delete_element(family, self._table, name, element), add]


def open_gate(policy: dict[str, Any], former: Gate | None = None) -> Gate:
    """The gate of a policy; with `former`, the one that it replaces, which is to be closed then.

    Raises:
        OSError: what was learned cannot be put into the new policy's sets.
    """
    gate = Gate(policy)
    if former is not None:
        gate.take_over(former)
    return gate


def _matches(entry: str, name: str) -> bool:
    if entry.startswith("*"):
        return entry == "*" or name.endswith(entry[1:])
    return entry == name
