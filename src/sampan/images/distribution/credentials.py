"""Who somebody is to a registry."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a client knows of a user: docker's AuthConfig.

    `identity_token` is an OAuth2 refresh token, given by a login instead of keeping the password;
    `registry_token` is a bearer token that is sent as it is. `server_address` is the registry that
    they are for, as the client spells it; "" means any. No secret is in `repr`.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server_address: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, server_address={self.server_address!r})"

    def __bool__(self) -> bool:
        """Whether there is anything to log in with."""
        return bool(self.username or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        """The value of an Authorization header of the scheme Basic (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()
