"""How a registry's failures are told: kinds of `sampan.errors` with dockerd's texts.

Source: OCI distribution-spec, "Error Codes"; the texts are those of dockerd 20.10.
"""

from __future__ import annotations

from sampan.errors import SampanError, Unavailable


class RegistryFailure(SampanError):
    """The registry refused, or answered with what makes no sense; asking again changes nothing."""


class Temporary(Unavailable):
    """A cut or stalled connection, 5xx, 429: another try may succeed.

    `retry_after` is the registry's wish in seconds, if it had one.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(Temporary):
    """No connection could be made, or no TLS spoken on it."""
