"""What a container's network policy says about names: asked here, decided elsewhere."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Gate(Protocol):
        """The policy of one container, as the resolver knows it."""

        def allows(self, name: str) -> bool:
            """Whether a name in lower case, without its last dot, may be asked of other servers."""

        def learn(self, name: str, addresses: list[tuple[bytes, int]]) -> None:
            """Let the container reach the addresses (packed, and for how many seconds) of a name.

            Raises:
                OSError: that failed; the container does not get the answer.
            """

        def refused(self) -> list[Any]:
            """What was not allowed, for the daemon to show."""

        def close(self) -> None: ...


class Shut:
    """The gate of a policy that could not be understood: nothing passes."""

    def allows(self, name: str) -> bool:
        return False

    def learn(self, name: str, addresses: list[tuple[bytes, int]]) -> None:
        raise PermissionError(1, name)

    def refused(self) -> list[Any]:
        return []

    def close(self) -> None: ...


def open_gate(policy: dict[str, Any], former: Any) -> Gate:
    """The gate of a policy as the daemon sent it; `former` is the one it replaces."""
    from sampan.network import policy_gate

    gate: Gate = policy_gate.open_gate(policy, former)
    return gate
