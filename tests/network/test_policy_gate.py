"""What a gate remembers has a limit, whatever the servers of an allowed name answer."""

from __future__ import annotations

import pytest

from sampan.linux import nfnetlink
from sampan.network import policy_gate
from sampan.network.policy_gate import LEARNED_MAX, Gate


class Kernel:
    """Counts what it is told, and keeps nothing."""

    changes = 0

    def transact(self, messages: list[nfnetlink.Message]) -> None:
        self.changes += len(messages)

    def close(self) -> None: ...


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(policy_gate.nfnetlink, "Connection", lambda: made)
    return made


def test_what_is_learned_is_limited(kernel: Kernel) -> None:
    """A server that has another address for each of its names, each to be kept for a day."""
    policies = [[{"names": ["*.example"], "sets": ["a", "b"]}]]
    gate = Gate({"table": "t", "policies": policies}, clock=lambda: 0.0)
    for number in range(3 * LEARNED_MAX):
        assert gate.allows(f"n{number}.example")
        gate.learn(f"n{number}.example", [(number.to_bytes(4, "big"), 86400)])
    assert kernel.changes == 3 * 2 * 3 * LEARNED_MAX
    assert len(gate._learned) <= LEARNED_MAX
    assert len(gate._kept) <= LEARNED_MAX


def test_what_is_kept_is_not_told_again(kernel: Kernel) -> None:
    policies = [[{"names": ["a.example"], "sets": ["a"]}]]
    gate = Gate({"table": "t", "policies": policies}, clock=lambda: 0.0)
    gate.learn("a.example", [(b"\1\2\3\4", 600)])
    gate.learn("a.example", [(b"\1\2\3\4", 600)])
    assert kernel.changes == 3
    gate.learn("a.example", [(b"\1\2\3\4", 3600)])
    assert kernel.changes == 6
